"""A live SQLite database read as the file it is, where that is what SQLite would read.

While a read transaction lasts, nobody writes to the file itself what the transaction must not see:
in rollback modes nobody may write to it at all, in WAL mode writers append to the WAL and a
checkpoint stops at what the oldest reader sees. So when all that the WAL holds is in the file as
well, once the transaction has begun, then the file is what the transaction sees, and stays it.
A gigabyte then takes as long as reading a file: SQLite hands over a page at a time.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import apsw

from mcp_backup.sources.digest import SEGMENT
from mcp_backup.sources.rooms import two_rooms
from mcp_backup.sources.sqlite_digest import LOCK_BYTES, ContentDigest, is_whole, page_size
from mcp_backup.sources.sqlite_file import HEADER_SIZE
from mcp_backup.sources.sqlite_pages import WriteAt, in_pieces
from mcp_backup.sources.sqlite_wal import all_checkpointed

_PIECE = 16 * SEGMENT
_ROLLBACK = ("delete", "truncate", "persist")


@contextmanager
def readable() -> Iterator["Reader"]:
    """Provide a reader of images; the connections that it is given must end before the block.

    Files that it opened are closed last: closing one drops the locks that SQLite has on it.
    """
    with ExitStack() as files:
        yield Reader(files)


class Reader:
    """Reads images of databases, the short way where it can."""

    def __init__(self, files: ExitStack) -> None:
        """Made by `readable`, which closes what was opened."""
        self._files = files

    def read(self, connection: apsw.Connection, write_at: WriteAt) -> str:
        """Hand over an image in pieces; return the digest of its content.

        A read transaction is under way on `connection`. Page 1 may come first or last.
        """
        file = self.plain(connection)
        if file is None:
            return in_pieces(connection, write_at)
        digest, page = ContentDigest(), page_size(os.pread(file, HEADER_SIZE, 0))
        size = os.fstat(file).st_size
        with two_rooms(_PIECE) as rooms:
            for offset in range(0, size, _PIECE):
                piece = rooms.next()[: size - offset]
                if os.preadv(file, [piece], offset) != len(piece):
                    raise OSError(errno.EIO, "the file ends before its end")
                passed = page if offset in (0, LOCK_BYTES) else 0
                rooms.give(digest.update, piece[passed:])
                write_at(offset, piece)
        return digest.end(os.pread(file, page, 0))

    def plain(self, connection: apsw.Connection) -> int | None:
        """Return the file, open, if it is what the transaction sees; None if it is not.

        It stays open, and what the transaction sees, as long as the transaction lasts.
        """
        path = connection.db_filename("main")
        if not path or not self._is_all(connection, path):
            return None
        file = self._opened(path)
        first, size = os.pread(file, HEADER_SIZE, 0), os.fstat(file).st_size
        return file if is_whole(first, size) else None

    def _is_all(self, connection: apsw.Connection, path: str) -> bool:
        """Whether the file holds all that the transaction sees, and will as long as it lasts."""
        mode = connection.pragma("journal_mode")
        if mode in _ROLLBACK:
            return True
        sides = [os.path.lexists(path + suffix) for suffix in ("-wal", "-shm")]
        if mode != "wal" or sides == [True, False]:
            return False
        return not any(sides) or all_checkpointed(self._opened(path + "-shm"))

    def _opened(self, path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._files.callback(os.close, descriptor)
        return descriptor
