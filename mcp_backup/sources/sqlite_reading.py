"""Reading a live SQLite database: one snapshot, pinned by a read transaction.

What state the files are in decides how they are opened:

    as running programs leave them      read-only, beside them; no byte of the database changes
    unfinished transaction of a crash   a private copy of database and journal, recovered there
    WAL whose index cannot be made      a private copy of database and WAL
    WAL mode, nobody has it open, and   a private copy: opening it would leave side files that
    it belongs to another user          belong to us, and its owner could not write any more

A private copy is taken only while nothing changes (`sqlite_file.copy_set`). `immutable=1` is
used on no live file: beside a journal or a WAL it reads wrong data without a word.

Waiting is bounded: a busy database is asked again every millisecond, since a writer that commits
without pause leaves gaps no longer than that, for half a minute in all.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import apsw
from msgspec import Struct

from mcp_backup.errors import BackupError, SourceBusy, SourceError, SourceUnreadable, SourceUnstable
from mcp_backup.sources.holders import holders_of, named
from mcp_backup.sources.sqlite_file import LiveFile, copy_set, identity, look, refuse_faulty

WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.001
_BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)


class Patience:
    """A bounded wait, as SQLite's busy handler and for loops of our own."""

    def __init__(self, seconds: float) -> None:
        """Wait `seconds` from now on, in all."""
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def __call__(self, _tries: int = 0) -> bool:
        """Wait a little and return True, or return False when the time is up."""
        if time.monotonic() >= self._end:
            return False
        time.sleep(_POLL_SECONDS)
        return True


class Snapshot(Struct, frozen=True):
    """A database at one point in time, for as long as the transaction on `connection` lasts.

    `live` is what was opened, or copied; `journal_mode` its own. `blocks_writers` says that it is
    live and in a rollback mode, so that nobody can commit meanwhile. `notes` are for people.
    """

    connection: apsw.Connection
    live: LiveFile
    journal_mode: str
    blocks_writers: bool
    notes: tuple[str, ...] = ()


@contextmanager
def snapshot(
    name: str, path: str | Path, scratch: Path, wait: float = WAIT_SECONDS
) -> Iterator[Snapshot]:
    """Pin the database at `path`, of source `name`, for the duration of the block.

    Nothing live is changed. Raises what `translated` says, and:

    Raises:
        SourceBusy: it stayed locked for `wait` seconds.
        SourceUnstable: a private copy was needed, and something kept writing.
    """
    patience = Patience(wait)
    live = look(name, path)
    refuse_faulty(live)
    with translated(name, live.path):
        connection = _pinned(live, patience)
        if connection is not None:
            mode = connection.pragma("journal_mode")
            try:
                yield Snapshot(connection, live, mode, blocks_writers=mode != "wal")
            finally:
                connection.close()
            return
        with TemporaryDirectory(dir=scratch) as directory:
            connection = _private(live, Path(directory), patience)
            try:
                mode = "wal" if live.in_wal_mode else "delete"
                yield Snapshot(connection, live, mode, False, (_note(live),))
            finally:
                connection.close()


@contextmanager
def undisturbed(
    name: str, path: str | Path, wait: float = WAIT_SECONDS
) -> Iterator[apsw.Connection]:
    """Pin a database like `snapshot`, leaving no side files where there were none.

    A database in WAL mode without side files is open nowhere; it is read as immutable, and what
    was read counts only if nobody came meanwhile.

    Raises:
        SourceUnstable: somebody did. Ask again.
    """
    live = look(name, path)
    refuse_faulty(live)
    if not live.in_wal_mode or any(map(os.path.lexists, live.family[1:])):
        with snapshot(name, path, Path(gettempdir())) as seen:
            yield seen.connection
        return
    before = identity(live)
    with translated(name, live.path):
        connection = connected(live.path, query="?immutable=1")
        try:
            begin(connection)
            yield connection
        finally:
            connection.close()
    if identity(live) != before:
        raise SourceUnstable(
            f"source {name!r}: {path} changed while it was read",
            hint="Try again. Nothing was changed by us.",
        )


@contextmanager
def translated(name: str, path: str) -> Iterator[None]:
    """Turn SQLite's errors about source `name` into ours.

    Raises:
        SourceBusy: locked; names who holds it, as far as we may see.
        SourceUnreadable: no database, encrypted, damaged, too new, not permitted.
        SourceError: the disk is full.
    """
    try:
        yield
    except _BUSY as error:
        raise busy(SourceBusy, name, path, WAIT_SECONDS) from error
    except apsw.NotADBError as error:
        raise SourceUnreadable(
            f"source {name!r}: {path} is not an SQLite database, or is encrypted",
            hint="Correct `path` in the settings; encrypted databases are not supported.",
        ) from error
    except apsw.CorruptError as error:
        raise SourceUnreadable(
            f"source {name!r}: {path} is damaged: {error}",
            hint="Restore it from an earlier backup. What is there now was not backed up.",
        ) from error
    except apsw.FullError as error:
        raise SourceError(
            f"source {name!r}: no space is left for a temporary copy of {path}",
            hint="Free some space, or set `TMPDIR` to a larger disk. Nothing live was changed.",
        ) from error
    except apsw.Error as error:
        raise SourceUnreadable(
            f"source {name!r}: SQLite cannot read {path}: {error} ({type(error).__name__})",
            hint="Look at the permissions of the file and of its directory, and run "
            "`mcp-backup doctor`.",
        ) from error


def busy(
    family: type[BackupError], name: str, path: str, seconds: float, hint: str = ""
) -> BackupError:
    """Word that a database is locked, and by whom."""
    who = named(holders_of([path, path + "-wal", path + "-shm", path + "-journal"]))
    return family(
        f"source {name!r}: {path} stayed locked for {seconds:.0f} s; "
        f"open in: {who or 'no process that this user may see'}",
        hint=hint or "Try again when that program has finished what it is doing.",
    )


def connected(
    path: str | Path, flags: int = apsw.SQLITE_OPEN_READONLY, query: str = ""
) -> apsw.Connection:
    """Open a database that is not trusted: no code in its schema runs, no extension loads.

    Collations that a program defined for itself are stood in for by the order of bytes.
    """
    uri = f"{Path(path).absolute().as_uri()}{query}"
    connection = apsw.Connection(uri, flags=flags | apsw.SQLITE_OPEN_URI)
    connection.collation_needed(stand_in)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    return connection


def stand_in(connection: apsw.Connection, name: str) -> None:
    """Register an order of bytes for a collation that we do not have."""
    connection.create_collation(name, _order)


def _order(one: str, other: str) -> int:
    return (one > other) - (one < other)


def _pinned(live: LiveFile, patience: Patience) -> apsw.Connection | None:
    """Begin a read transaction on the live file; None when only a private copy will do."""
    if _would_leave_side_files(live):
        return None
    while True:
        connection = None
        try:
            connection = connected(live.path)
            connection.set_busy_handler(patience)
            begin(connection)
        except (apsw.ReadOnlyError, apsw.CantOpenError, *_BUSY) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, apsw.ReadOnlyError):
                return None
            if isinstance(error, apsw.CantOpenError) and _lasts(live):
                return None
            if not patience():
                raise
        except apsw.Error:
            if connection is not None:
                connection.close()
            raise
        else:
            return connection


def begin(connection: apsw.Connection) -> None:
    """Begin a read transaction, which pins what is read from now on."""
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - runs it


def _would_leave_side_files(live: LiveFile) -> bool:
    """Whether a plain open would make a WAL and an index that belong to us, not to the owner."""
    if os.geteuid() in (0, live.status.st_uid):
        return False  # SQLite, run by root, gives them to the database's owner
    return live.in_wal_mode and not (os.path.exists(live.wal) and os.path.exists(live.shm))


def _lasts(live: LiveFile) -> bool:
    """Whether a refusal to open comes from the files, not from a moment in which one vanished."""
    return os.access(live.path, os.R_OK) and not os.access(os.path.dirname(live.path), os.W_OK)


def _private(live: LiveFile, directory: Path, patience: Patience) -> apsw.Connection:
    while (copy := copy_set(live, directory)) is None:
        if not patience():
            raise SourceUnstable(
                f"source {live.name!r}: {live.path} changed during each attempt to copy it",
                hint="Start the program that owns it once, which finishes what a crash left, "
                "then try again.",
            )
    connection = connected(copy, apsw.SQLITE_OPEN_READWRITE)
    begin(connection)
    return connection


def _note(live: LiveFile) -> str:
    if os.path.exists(live.journal):
        return (
            f"{live.path}: a crash left a transaction unfinished; the backup has the state before "
            "it, and the live file was not touched"
        )
    return f"{live.path}: read from a private copy, since opening it would have changed its files"
