"""An SQLite database as a stream of pages, without a temporary copy.

SQLite's backup API copies a consistent snapshot from one connection to another. Here the other's
file is no file: its writes are handed to a function as they come. Pages 2 to N come once and in
order, page 1 last (first, where pages are smaller than 4 KiB); the page at 1 GiB that holds the
lock bytes never comes, nor is it ever read.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import apsw

from mcp_backup.sources.sqlite_digest import ContentDigest

WriteAt = Callable[[int, bytes | memoryview], None]  # which is gone after the call

_PIECE = 1 << 20
_SERIAL = count()
_QUIET = (
    "PRAGMA journal_mode=off",  # of a file that is thrown away when the copy fails
    "PRAGMA synchronous=off",
    "PRAGMA locking_mode=exclusive",
    "PRAGMA cache_size=10",  # pages pass through: few stay in the processor's own cache
)


def stream(source: apsw.Connection, write_at: Callable[[int, bytes], None]) -> None:
    """Hand every page of `source` to `write_at`, with its offset in bytes.

    The caller holds a read transaction on `source`: without one a busy writer would have the
    copy begin again for ever. What `write_at` raises comes out of here.
    """
    vfs = _Pages(f"pages-{next(_SERIAL)}", write_at)
    try:
        target = apsw.Connection("image", vfs=vfs.vfs_name)
        try:
            copy(source, target)
        finally:
            target.close()
    finally:
        vfs.unregister()


def in_pieces(source: apsw.Connection, write_at: WriteAt) -> str:
    """Do the same in pieces of a mebibyte, page 1 last; return the digest of the content."""
    digest, held, at, first = ContentDigest(), bytearray(), 0, b""

    def take(offset: int, data: bytes) -> None:
        nonlocal at, first
        if not offset:
            first = bytes(data)
            return
        if len(held) >= _PIECE or offset != at + len(held):
            flush()
            at = offset
        held.extend(data)

    def flush() -> None:
        if held:
            digest.update(held)
            write_at(at, bytes(held))
            held.clear()

    stream(source, take)
    flush()
    write_at(0, first)
    return digest.end(first)


def copy_to_file(source: apsw.Connection, path: str) -> None:
    """Write an image of `source` to the new file `path`, fast and not durably."""
    target = apsw.Connection(path)
    try:
        copy(source, target)
    finally:
        target.close()


def copy(source: apsw.Connection, target: apsw.Connection) -> None:
    """Copy `source` into a new database that nobody else knows of."""
    for pragma in _QUIET:
        target.execute(pragma)
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(-1)


class _Pages(apsw.VFS):
    """A file system of one file that is only ever written."""

    def __init__(self, name: str, write_at: Callable[[int, bytes], None]) -> None:
        self.vfs_name = name
        self._write_at = write_at
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's names
        return _PagesFile(self._write_at)

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        return False

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """There is nothing to delete."""


class _PagesFile:
    """The file: takes writes, knows its size, holds no bytes."""

    def __init__(self, write_at: Callable[[int, bytes], None]) -> None:
        self._write_at = write_at
        self._size = 0

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._write_at(offset, data)
        self._size = max(self._size, offset + len(data))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if offset < self._size:
            raise apsw.IOError("a page that has been handed over is read again")
        return b""

    def xFileSize(self) -> int:  # noqa: N802
        return self._size

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        if newsize < self._size:
            raise apsw.IOError("a page that has been handed over is cut off")

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Nothing is on a disk."""

    def xClose(self) -> None:  # noqa: N802
        """Nothing is open."""

    def xLock(self, level: int) -> None:  # noqa: N802
        """Nobody else knows of it."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """Nobody else knows of it."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0
