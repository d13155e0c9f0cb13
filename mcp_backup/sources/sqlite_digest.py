"""The content digest of an SQLite image: what two copies of one database have in common.

    digest = "sqlite:" hex( BLAKE3( page 2 │ … │ page n │ page 1, masked ) )

Pages come in order but for the first, as SQLite's backup hands them over, and without the page
of the lock bytes, which never comes. Masked is what a copy changes in the header. No library is
needed to read an image that is whole in itself, so `of_image` may be called anywhere.
"""

import os
from itertools import count

from blake3 import blake3
from msgspec import Struct

from mcp_backup.sources.digest import SEGMENT, fill, of_segments, segments
from mcp_backup.sources.rooms import two_rooms

LOCK_BYTES = 1 << 30  # offset of the page that SQLite keeps for locks, and nothing else
_MAGIC = b"SQLite format 3\0"
_PIECE = 32 * SEGMENT
_MASKED = (
    slice(18, 20),  # journal mode, which belongs to the live file
    slice(24, 28),  # change counter
    slice(40, 44),  # schema cookie
    slice(92, 100),  # change counter again, and the version of the library that wrote last
)


class ImageDigests(Struct, frozen=True):
    """One reading of an image: its bytes' end-to-end digest (`digest.py`), and its content's.

    `content` is "" where only SQLite can say what the file holds.
    """

    bytes: str
    content: str


class ContentDigest:
    """The digest of pages as they come: in order, page 1 last."""

    def __init__(self) -> None:
        """Begin with no page."""
        self._hasher = blake3()

    def update(self, pages: bytes | bytearray | memoryview) -> None:
        """Take the next pages, none of which is page 1."""
        self._hasher.update(pages)

    def end(self, first: bytes | bytearray | memoryview) -> str:
        """Take page 1, and return the digest."""
        page = bytearray(first)
        for masked in _MASKED:
            page[masked] = bytes(masked.stop - masked.start)
        self._hasher.update(page)
        return f"sqlite:{self._hasher.hexdigest()}"


def page_size(header: bytes | bytearray | memoryview) -> int:
    """Return the size of pages by a database's first 100 bytes, 0 when that makes no sense."""
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    return size if size >= 512 and size & (size - 1) == 0 else 0


def of_image(path: str | os.PathLike[str]) -> ImageDigests:
    """Read the image at `path`, which nobody else writes to, from end to end.

    The two digests are made side by side, of one reading.
    """
    content, whole, first = ContentDigest(), bytearray(), b""
    with open(path, "rb", buffering=0) as file, two_rooms(_PIECE) as rooms:
        size = os.fstat(file.fileno()).st_size
        for position in count(0, _PIECE):
            room = rooms.next()
            piece = room[: fill(file, room)]
            if not piece:
                break
            page = page_size(first or piece)
            if position == 0:
                first = bytes(piece[:page])
            start = page if position in (0, LOCK_BYTES) else 0
            rooms.give(content.update, piece[start:])
            whole += segments(piece)
    told = content.end(first) if is_whole(first, size) else ""
    return ImageDigests(of_segments(bytes(whole)), told)


def is_whole(first: bytes, size: int) -> bool:
    """Whether an image is as long as its header says, and the header is to be believed.

    Else its pages are what SQLite takes them to be: the digest is for SQLite to make.
    """
    page, pages = page_size(first), int.from_bytes(first[28:32], "big")
    return (
        first[:16] == _MAGIC and page > 0 and pages * page == size and first[24:28] == first[92:96]
    )
