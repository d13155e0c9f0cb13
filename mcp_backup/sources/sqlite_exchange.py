"""The exchange of a live database in WAL mode, page by page: what is equal is left alone.

SQLite's backup writes every page into the WAL, and from there into the file. Here only pages that
differ come into the WAL, as one transaction:

    locked       we hold SQLite's write lock, taken by SQLite itself, and that of checkpoints:
                 nobody writes meanwhile
    compared     with the file as it is; a page that lies in the WAL counts as different
    appended     behind all that counts in the WAL, and on the disk, before it is made to count
    published    by making the index of the WAL invalid, upon which SQLite, ours at once or
                 anybody else's, makes it anew from the WAL: one transaction longer

Killed before the last, we leave what SQLite itself leaves of a transaction that was not
committed: frames behind the last that counts. The next writer overwrites them; after a crash of
the machine they count, whole or not at all. Killed after it, we leave what any crash leaves.
Readers go on with what they began with; who begins while the index is made anew, waits or is told
that the database is busy, for some milliseconds.

Whatever is not exactly as expected is not touched, and left to SQLite's backup, which copes with
everything: another page size, rollback modes, damage. So are databases that differ in more than
an eighth of their pages: checksums of frames take 50 µs a page in Python.
"""

import fcntl
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import apsw

from mcp_backup.durable import fsync_directory, fsync_file
from mcp_backup.sources import sqlite_wal
from mcp_backup.sources.sqlite_digest import LOCK_BYTES, is_whole, page_size
from mcp_backup.sources.sqlite_file import HEADER_SIZE, WAL_MODE, LiveFile
from mcp_backup.sources.sqlite_reading import Patience

_PIECE = 4 << 20  # a multiple of every page size
_FEW = 1024  # pages that may differ in any database
_SHARE = 8  # one page in so many may differ
_CHECKPOINT_LOCK = 121  # a byte of the index; held by whoever checkpoints
_CHECKPOINT_SECONDS = 2.0
_SAME = (  # in both headers, or programs that have the database open would not notice the change
    slice(16, 18),  # page size
    slice(20, 21),  # bytes reserved in each page
    slice(52, 60),  # auto-vacuum, text encoding
    slice(64, 68),  # incremental vacuum
)

Opener = Callable[[], AbstractContextManager[apsw.Connection]]


def exchange_pages(live: LiveFile, image: Path, opened: Opener) -> bool:
    """Make the live database hold what `image` holds, or return False and leave it as it is.

    `opened` opens the live database to be written. Raises what SQLite raises, and then nothing
    was changed.
    """
    if not live.in_wal_mode or not _alike(live.header, image):
        return False
    with ExitStack() as files:  # closed after the connection: closing one drops all its locks
        main = files.enter_context(_file(live.path, os.O_RDONLY))
        new = files.enter_context(_file(image, os.O_RDONLY))
        with opened() as connection:
            if connection.pragma("journal_mode") != "wal":
                return False
            connection.execute("BEGIN IMMEDIATE")
            wal = files.enter_context(_file(live.wal, os.O_RDWR))
            index = files.enter_context(_file(live.shm, os.O_RDWR))
            last = sqlite_wal.end(wal, index, page_size(live.header))
            if last is None or not os.path.samestat(os.fstat(main), os.stat(live.path)):
                return False
            if not _no_checkpoints(index):
                return False
            changed = _changed(main, new, last, wal)
            if changed is None:
                return False
            first = _first_page(connection, main, new, last.page_size)
            pages = os.fstat(new).st_size // last.page_size
            _append(live, wal, last, _pages(new, first, changed, last.page_size), pages)
            sqlite_wal.publish(index)
            with suppress(apsw.Error):  # it is done; if not here, the next reader reads it anew
                connection.execute("COMMIT")  # of nothing: it lets go of the lock
                fcntl.lockf(index, fcntl.LOCK_UN, 1, _CHECKPOINT_LOCK)
                connection.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - reads
    return True


def _no_checkpoints(index: int) -> bool:
    """Keep checkpoints out, until files are closed; an index can be made anew only between them.

    A lock of this process does not stand in the way of our own SQLite.
    """
    patience = Patience(_CHECKPOINT_SECONDS)
    while True:
        try:
            fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _CHECKPOINT_LOCK)
        except (BlockingIOError, PermissionError):
            if not patience():
                return False
        else:
            return True


@contextmanager
def _file(path: str | Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _alike(header: bytes, image: Path) -> bool:
    """Whether an image is whole, and may take a database's place without its programs' notice."""
    with open(image, "rb") as file:
        other, size = file.read(HEADER_SIZE), os.fstat(file.fileno()).st_size
    alike = all(header[part] == other[part] for part in _SAME)
    return len(header) == HEADER_SIZE and alike and is_whole(other, size)


def _changed(main: int, new: int, last: sqlite_wal.End, wal: int) -> Sequence[int] | None:
    """Return the numbers of the pages to be written, page 1 first; None for too many."""
    size, page = os.fstat(new).st_size, last.page_size
    pages = size // page
    most = max(_FEW, pages // _SHARE)
    if last.frames > 4 * most:
        return None
    found = {1, *(number for number in sqlite_wal.pages_in(wal, last) if number <= pages)}
    live, image = bytearray(_PIECE), bytearray(_PIECE)
    with ThreadPoolExecutor(1) as beside:
        for offset in range(0, size, _PIECE):
            reading = beside.submit(_read, main, live, offset)
            wanted, old = _read(new, image, offset), reading.result()
            if old != wanted:
                found.update(
                    (offset + start) // page + 1
                    for start in range(0, len(wanted), page)
                    if old[start : start + page] != wanted[start : start + page]
                )
                if len(found) > most:
                    return None
    found.discard(LOCK_BYTES // page + 1)
    return array("I", sorted(found))


def _read(file: int, room: bytearray, offset: int) -> bytearray:
    """Return what the file has at `offset`, as much as fits into `room`, and mostly in it."""
    length = os.preadv(file, [room], offset)
    return room if length == len(room) else room[:length]


def _first_page(connection: apsw.Connection, main: int, new: int, page: int) -> bytes:
    """Return page 1 as it goes live: what belongs to the live file, is the live file's.

    The schema's cookie moves on, so that those who have the database open read the schema again.
    """
    first = bytearray(os.pread(new, page, 0))
    counters = (os.pread(main, 4, 24), bytes(first[24:28]))
    counter = max(int.from_bytes(each, "big") for each in counters) + 1 & 0xFFFFFFFF
    cookie = int(connection.pragma("schema_version")) + 1 & 0xFFFFFFFF
    first[18:20] = bytes([WAL_MODE] * 2)
    first[24:28] = first[92:96] = counter.to_bytes(4, "big")
    first[40:44] = cookie.to_bytes(4, "big")
    return bytes(first)


def _pages(
    new: int, first: bytes, changed: Sequence[int], page: int
) -> Iterator[tuple[int, bytes]]:
    for number in changed:
        content = first if number == 1 else os.pread(new, page, (number - 1) * page)
        yield number, content


def _append(
    live: LiveFile, wal: int, last: sqlite_wal.End, changed: Iterator[tuple[int, bytes]], pages: int
) -> None:
    """Append the transaction, durably; what cannot be is cut off again, lest a crash revive it."""
    size = os.fstat(wal).st_size
    try:
        sqlite_wal.append(wal, last, changed, pages)
        fsync_file(wal)
        fsync_directory(Path(live.path).parent)
    except BaseException:
        os.ftruncate(wal, size)
        raise
