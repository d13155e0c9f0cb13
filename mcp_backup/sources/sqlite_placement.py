"""SQLite databases put live: the exchange, the undo point before it, and the way back.

    atomic       the new content is written into the live file in one transaction of SQLite's own:
                 whatever kills us, whoever opens it next finds all of the old or all of the new
    unnoticed    the file stays the same file: programs that have it open go on with the new content
    unhaunted    no journal or WAL of the old content is ever replayed over the new
    modest       in WAL mode, pages that are equal are left alone (`sqlite_exchange`)
    polite       while somebody reads or writes, we wait ten seconds, then refuse and say who

A live file that is damaged is taken to be empty, by SQLITE_DBCONFIG_RESET_DATABASE: that too is
one transaction, and rolls back to the damage. In trials it mended every kind (garbage, text, cut
off, page 1 overwritten, another page size), except beside some WALs of other databases: those are
removed first, and are in the undo point.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import apsw

from mcp_backup.durable import (
    final_name,
    fsync_file,
    make_directory_durably,
    remove_durably,
    temporary_name,
)
from mcp_backup.errors import RestoreError, TargetBusy
from mcp_backup.sources.confined import (
    held,
    open_files,
    real_path,
    refuse_other_names,
    refuse_strangers,
)
from mcp_backup.sources.holders import holders_of, named
from mcp_backup.sources.source import SourceSpec
from mcp_backup.sources.sqlite_examine import only_file
from mcp_backup.sources.sqlite_exchange import exchange_pages
from mcp_backup.sources.sqlite_file import MAGIC, LiveFile, copy_file, look, size_of
from mcp_backup.sources.sqlite_reading import Patience, busy, connected

WAIT_SECONDS = 10.0
_CHECKPOINT_SECONDS = 1.0  # the content is live already; this only makes the WAL small
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.ReadOnlyError)
_UNTOUCHED = "Nothing live was touched."
_SERIAL = count()


def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Put the database in the directory `staged` live at `spec.path`; return notes for people.

    Raises:
        TargetBusy: somebody holds the live database; nothing was changed.
        RestoreError: it cannot be written.
    """
    return exchange(spec.name, Path(real_path(spec)), only_file(staged))


def exchange(name: str, path: Path, image: Path) -> list[str]:
    """Make the live file `path` of source `name` hold what `image` holds."""
    if not os.path.lexists(path):
        _create(name, path, image)
        return []
    live = look(name, path)
    refuse_other_names(live.family)
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise RestoreError(
            f"source {name!r}: {path} or its directory may not be written by this user",
            hint=f"Run mcp-backup as the user that owns the database. {_UNTOUCHED}",
        )
    with _worded(name, path):
        _drop_stale_wal(live)
        return _overwrite(live, image)


def refuse_holders(name: str, path: Path) -> None:
    """Refuse to touch files that somebody has open.

    Raises:
        TargetBusy: names who.
    """
    who = named(holders_of(f"{path}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")))
    if who:
        raise TargetBusy(
            f"source {name!r}: {path} is open in {who}",
            hint=f"Stop that program, then try again. {_UNTOUCHED}",
        )


@contextmanager
def _worded(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (apsw.BusyError, apsw.LockedError, apsw.ProtocolError) as error:
        hint = f"Stop that program, or wait until it is idle, then try again. {_UNTOUCHED}"
        raise busy(TargetBusy, name, str(path), WAIT_SECONDS, hint) from error
    except apsw.FullError as error:
        raise RestoreError(
            f"source {name!r}: no space is left on the disk of {path}",
            hint="The exchange may need as much again as the database, for a moment. Free some "
            f"space, then try again. {_UNTOUCHED}",
        ) from error
    except apsw.Error as error:
        raise RestoreError(
            f"source {name!r}: SQLite cannot write {path}: {error} ({type(error).__name__})",
            hint=f"Stop the programs that use it, then try again. {_UNTOUCHED}",
        ) from error


def _overwrite(live: LiveFile, image: Path) -> list[str]:
    if not _pages_exchanged(live, image):
        _copy_over(live, image)
    with _opened(live, _CHECKPOINT_SECONDS) as connection:
        return _checkpoint(live, connection)


def _pages_exchanged(live: LiveFile, image: Path) -> bool:
    """Write only the pages that differ, where that can be done."""
    try:
        return exchange_pages(live, image, lambda: _opened(live, WAIT_SECONDS))
    except (*_DAMAGED, OSError):  # nothing was changed; the other way knows how to say why
        return False


def _copy_over(live: LiveFile, image: Path) -> None:
    """Write all pages, by SQLite's backup; mends what is damaged."""
    journal_mode = live.header[18] if live.header[:16] == MAGIC and len(live.header) > 18 else 0
    with _presented(image, journal_mode) as source:
        try:
            _write(live, source, reset=False)
        except _DAMAGED:
            _refuse_wal_holders(live)  # they would not see that the database began anew
            try:
                _write(live, source, reset=True)
            except _DAMAGED:
                if not os.path.lexists(live.wal):
                    raise
                _drop_wal(live)  # another database's, which SQLite cannot see past
                _write(live, source, reset=True)


def _write(live: LiveFile, source: apsw.Connection, *, reset: bool) -> None:
    with _opened(live, WAIT_SECONDS, reset=reset) as target:
        patience = Patience(WAIT_SECONDS)
        with target.backup("main", source, "main") as backup:
            while not backup.done:
                try:
                    backup.step(-1)
                except (apsw.BusyError, apsw.LockedError):
                    if not patience():
                        raise


def _checkpoint(live: LiveFile, connection: apsw.Connection) -> list[str]:
    """Bring the new content from the WAL into the file, and make the WAL small again."""
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except (apsw.BusyError, apsw.LockedError):
        size = size_of(live.wal)
        return [f"{live.wal} stays at {size} bytes until those who read the database are done"]
    return []


@contextmanager
def _opened(live: LiveFile, wait: float, *, reset: bool = False) -> Iterator[apsw.Connection]:
    """Open the live database to be written; with `reset`, as if there were nothing in it."""
    before = open_files()
    connection = connected(live.path, apsw.SQLITE_OPEN_READWRITE)
    try:
        refuse_strangers(before, live.family)
        connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, int(reset))
        connection.set_busy_handler(Patience(wait))
        connection.execute("PRAGMA synchronous=EXTRA")  # the journal's end must be durable, too
        connection.execute("PRAGMA fullfsync=1")
        yield connection
    finally:
        connection.close()


def _refuse_wal_holders(live: LiveFile) -> None:
    who = named(holders_of([live.wal, live.shm]))
    if who:
        raise TargetBusy(
            f"source {live.name!r}: {live.path} is damaged, or has another page size, and is open "
            f"in {who}",
            hint=f"Stop that program, then try again. {_UNTOUCHED}",
        )


def _drop_stale_wal(live: LiveFile) -> None:
    """Remove a WAL beside a database in a rollback mode: opening it would replay another's pages.

    None belongs there: SQLite deletes it before it leaves WAL mode.
    """
    stale = live.header[:16] == MAGIC and not live.in_wal_mode and os.path.lexists(live.wal)
    if stale and not holders_of([live.wal, live.shm]):
        _drop_wal(live)


def _drop_wal(live: LiveFile) -> None:
    remove_durably(Path(live.wal))
    remove_durably(Path(live.shm))


def _create(name: str, path: Path, image: Path) -> None:
    """Make the live file anew, with the mode and owner of `image`; it appears whole."""
    make_directory_durably(path.parent)
    with held(path.parent) as parent:
        _create_in(parent, name, path, image)


def _create_in(parent: int, name: str, path: Path, image: Path) -> None:
    for left in os.listdir(parent):  # of an attempt that was killed
        if final_name(left) == path.name:
            os.unlink(left, dir_fd=parent)
    temporary = path.with_name(temporary_name(path.name))
    try:
        copy_durably(image, temporary)
        for suffix in ("-journal", "-wal", "-shm"):  # of a database that is no more
            with suppress(FileNotFoundError):
                os.unlink(f"{path.name}{suffix}", dir_fd=parent)
        os.fsync(parent)
        os.link(temporary.name, path.name, src_dir_fd=parent, dst_dir_fd=parent)
    except FileExistsError as error:
        raise TargetBusy(
            f"source {name!r}: {path} appeared while it was being restored",
            hint=f"Plan the restore again. {_UNTOUCHED}",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    os.fsync(parent)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file with its mode, times and, where permitted, owner; its name is not durable yet."""
    copy_file(source, target)
    give_attributes(target, source.stat())


def give_attributes(path: Path, status: os.stat_result) -> None:
    """Give a file the mode, times and, where permitted, the owner in `status`; make it durable."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        with suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o7777)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        fsync_file(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _presented(image: Path, journal_mode: int) -> Iterator[apsw.Connection]:
    """Open `image` for reading, as if its header said `journal_mode` (1, 2; 0: what it says).

    SQLite's backup copies the header: without this, a restore would turn the live database to
    the journal mode it had when it was captured.
    """
    vfs = _Presenting(f"presenting-{next(_SERIAL)}", journal_mode)
    try:
        connection = apsw.Connection(
            f"{image.absolute().as_uri()}?immutable=1",
            flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            vfs=vfs.vfs_name,
        )
        try:
            yield connection
        finally:
            connection.close()
    finally:
        vfs.unregister()


class _Presenting(apsw.VFS):
    """The usual file system, with one file's journal mode read as another."""

    def __init__(self, name: str, journal_mode: int) -> None:
        self.vfs_name = name
        self._journal_mode = journal_mode
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's names
        return _PresentedFile(name, flags, self._journal_mode)


class _PresentedFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], journal_mode: int) -> None:
        self._journal_mode = journal_mode
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        data = super().xRead(amount, offset)
        if not self._journal_mode or offset > 18 or offset + len(data) < 20:
            return data
        start = 18 - offset
        return data[:start] + bytes([self._journal_mode] * 2) + data[start + 2 :]
