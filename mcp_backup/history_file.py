"""The history's file: SQLite that several processes use at once. Everything here blocks.

A connection lives for one transaction, so there is nothing to close and nothing to share. A file
that is damaged is moved aside, never repaired in place, and a new one begun that says so.

A run in progress is known by a lock on a file of its own, `history.running/<token>`. The kernel
drops it when the process dies, however it dies: no process id that may come again is trusted.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mcp_backup.errors import HistoryUnusable

T = TypeVar("T")
VERSION = 1
_CACHE_KIB = 256  # not 2,000: each thread's heap keeps what one connection once took
_PATIENCE_SECONDS = 10.0  # how long to wait for another process's transaction
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_SIDE_FILES = ("-wal", "-shm")

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    verb TEXT NOT NULL, subject TEXT NOT NULL, slot TEXT NOT NULL, attempt INTEGER NOT NULL,
    door TEXT NOT NULL, client TEXT NOT NULL, version TEXT NOT NULL, tool TEXT NOT NULL,
    token TEXT NOT NULL, begun INTEGER NOT NULL, ended INTEGER, outcome TEXT NOT NULL,
    backup_id TEXT NOT NULL DEFAULT '', read INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0, stored INTEGER NOT NULL DEFAULT 0,
    duration REAL NOT NULL DEFAULT 0, error_code TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_run_per_slot ON runs (verb, slot, attempt) WHERE slot <> '';
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (begun);
CREATE INDEX IF NOT EXISTS runs_under_way ON runs (id) WHERE outcome = 'running';
CREATE INDEX IF NOT EXISTS runs_that_verified ON runs (id) WHERE verb = 'verify';
CREATE TABLE IF NOT EXISTS sources (
    run INTEGER NOT NULL, component TEXT NOT NULL, name TEXT NOT NULL, outcome TEXT NOT NULL,
    read INTEGER NOT NULL, added INTEGER NOT NULL, duration REAL NOT NULL,
    findings INTEGER NOT NULL, message TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS sources_by_run ON sources (run);
CREATE TABLE IF NOT EXISTS successes (
    component TEXT NOT NULL, name TEXT NOT NULL, time INTEGER NOT NULL,
    backup_id TEXT NOT NULL, PRIMARY KEY (component, name)
) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
PRAGMA user_version = {VERSION};
COMMIT;
"""


class HistoryFile:
    """The file and its transactions; any thread, any process."""

    def __init__(self, path: Path) -> None:
        """Use the file `path`; it is made when first needed."""
        self.path = path
        self._running = path.with_name("history.running")

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in a transaction: all of it is on the disk afterwards, or none.

        Raises:
            HistoryUnusable: the file cannot be read or written.
        """
        try:
            try:
                return self._attempt(work)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._move_aside()
                return self._attempt(work)
        except (sqlite3.Error, OSError, OverflowError) as error:  # the last: a time beyond all time
            raise HistoryUnusable(self.path, str(error)) from error

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(self._connect()) as connection, _transaction(connection):
            return work(connection)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, timeout=_PATIENCE_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            if _version(connection) < VERSION:
                with _locked(self.path.with_name("history.making.lock")):
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.executescript(_SCHEMA)
            self._refuse_newer(_version(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_newer(self, version: int) -> None:
        if version > VERSION:
            raise HistoryUnusable(self.path, f"it is of version {version}, a newer program's")

    def _move_aside(self) -> None:
        """Give a damaged file another name; of several processes that find it so, one does."""
        with _locked(self.path.with_name("history.lock")):
            try:
                self._attempt(_read_through)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
            else:
                return  # another process was first
            aside = f"{self.path.name}.damaged-{time.time_ns() // 1_000_000}"
            for side in _SIDE_FILES:
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{side}", self.path.with_name(aside + side))
            os.replace(self.path, self.path.with_name(aside))
            self._attempt(lambda connection: set_fact(connection, "damaged", aside))

    def begin_running(self, token: str) -> int:
        """Be known to run as `token`, until `end_running` or the end of this process."""
        try:
            self._running.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._running.chmod(0o700)  # whatever the umask took away
            descriptor = os.open(self._running / token, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise HistoryUnusable(self.path, str(error)) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def end_running(self, token: str, descriptor: int) -> None:
        """Be known no more."""
        with suppress(OSError):  # whoever looks next removes it
            (self._running / token).unlink(missing_ok=True)
        os.close(descriptor)

    def runs(self, token: str) -> bool:
        """Whether the process that runs as `token` still lives."""
        path = self._running / token
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)


def set_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep one fact about the file itself, in place of what was kept under that name."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def fact(connection: sqlite3.Connection, name: str) -> str:
    """Return a fact kept before, or ""."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else ""


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # the first error matters more, and closing rolls back
                connection.execute("ROLLBACK")
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _read_through(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE
