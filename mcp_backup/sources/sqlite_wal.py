"""A transaction appended to an SQLite WAL, byte by byte as SQLite would have written it.

    WAL        header (32) │ frame 1 │ … │ frame n
    frame      page number │ pages in the database, if the transaction ends here, else 0 │ salts (8)
               │ checksum (8) │ the page
    index      -shm: two copies of a header (48), which says how many frames count, then what has
               been checkpointed, then a hash table over the frames

Checksums go on from frame to frame, so a frame counts only after all before it, and frames count
only up to one that ends a transaction. What lies behind the frames that the index counts is
nothing to anybody, until the index is made anew from the WAL: SQLite does that whenever the two
copies of the index's header disagree, and after every crash.

Source: sqlite.org/walformat.html and sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

_HEADER = struct.Struct(">IIII8sII")  # magic, version, page size, checkpoints, salts, checksum
_FRAME = struct.Struct(">II8sII")
_INDEX = struct.Struct("=IIIBBHIIII8sII")
_MAGIC = 0x377F0682 | (sys.byteorder == "big")
_VERSION = 3007000
_CHECKSUM_AT = 40  # in either copy of the index's header
_BACKFILLED_AT = 2 * _INDEX.size  # how many frames have been checkpointed
_WRITE = 256 << 10  # bytes of frames written at once
_MASK = 0xFFFFFFFF

Checksum = tuple[int, int]


class End(Struct, frozen=True):
    """Where the WAL ends for everybody: `frames` of `page_size` count, of `pages` in the database.

    `salts` and `checksum` are what the next frame goes on from.
    """

    frames: int
    page_size: int
    pages: int
    salts: bytes
    checksum: Checksum

    @property
    def offset(self) -> int:
        """Where the next frame goes, in bytes."""
        return _HEADER.size + self.frames * (_FRAME.size + self.page_size)


def end(wal: int, index: int, page_size: int) -> End | None:
    """Read where the WAL ends; None when index and WAL do not agree, or are not of this kind.

    The caller keeps all writers out.
    """
    header = os.pread(index, 2 * _INDEX.size, 0)
    if len(header) < 2 * _INDEX.size or header[: _INDEX.size] != header[_INDEX.size :]:
        return None
    version, _, _, ready, order, size, frames, pages, one, two, salts, *_ = _INDEX.unpack_from(
        header
    )
    size = (size & 0xFE00) | (size & 1) << 16
    if (version, ready, order) != (_VERSION, 1, sys.byteorder == "big"):
        return None
    found = End(frames, page_size, pages, salts, (one, two))
    if not frames:
        return found
    if size != page_size or os.pread(wal, 8, 16) != salts:
        return None
    last = os.pread(wal, _FRAME.size, found.offset - _FRAME.size - page_size)
    if len(last) < _FRAME.size:
        return None
    _, committed, its_salts, *checksum = _FRAME.unpack(last)
    agree = (committed, its_salts, tuple(checksum)) == (pages, salts, found.checksum)
    return found if agree else None


def all_checkpointed(index: int) -> bool:
    """Whether all frames that count are in the database as well."""
    header = os.pread(index, _BACKFILLED_AT + 4, 0)
    if len(header) < _BACKFILLED_AT + 4:
        return False
    one, other = header[: _INDEX.size], header[_INDEX.size : _BACKFILLED_AT]
    version, _, _, ready, _, _, frames, *_ = _INDEX.unpack(one)
    backfilled = int.from_bytes(header[_BACKFILLED_AT:], sys.byteorder)
    return one == other and (version, ready) == (_VERSION, 1) and frames == backfilled


def pages_in(wal: int, last: End) -> set[int]:
    """Return the numbers of all pages in the frames that count."""
    stride = _FRAME.size + last.page_size
    return {
        int.from_bytes(os.pread(wal, 4, _HEADER.size + number * stride), "big")
        for number in range(last.frames)
    }


def append(wal: int, last: End, changed: Iterable[tuple[int, bytes]], pages: int) -> None:
    """Write a transaction behind what counts: pages with their numbers, `pages` in all after it.

    Nobody reads it yet, and it is not durable.
    """
    if not last.frames:
        last = _begin(wal, last)
    offset = last.offset
    for batch in _batches(_frames(last, changed, pages)):
        _write_all(wal, batch, offset)
        offset += len(batch)


def publish(index: int) -> None:
    """Have the index made anew from the WAL by whoever reads next.

    From here on what was appended counts: this is one write of eight bytes.
    """
    at = _INDEX.size + _CHECKSUM_AT
    os.pwrite(index, bytes(byte ^ 0xFF for byte in os.pread(index, 8, at)), at)


def checksum(words: Sequence[int], before: Checksum = (0, 0)) -> Checksum:
    """Go on with the checksum `before` over an even number of 32-bit words, in native order."""
    one, two = before
    numbers = iter(words)
    for even, odd in zip(numbers, numbers, strict=True):
        one = (one + even + two) & _MASK
        two = (two + odd + one) & _MASK
    return one, two


def _begin(wal: int, last: End) -> End:
    """Write a header with salts of its own, so that no frame of before counts any more."""
    before = os.pread(wal, _HEADER.size, 0)
    checkpoints = int.from_bytes(before[12:16], "big") + 1 if len(before) == _HEADER.size else 0
    salt = (int.from_bytes(last.salts[:4], "big") + 1) & _MASK
    salts = salt.to_bytes(4, "big") + os.urandom(4)
    head = _HEADER.pack(_MAGIC, _VERSION, last.page_size, checkpoints & _MASK, salts, 0, 0)[:24]
    total = checksum(array("I", head))
    _write_all(wal, head + b"".join(word.to_bytes(4, "big") for word in total), 0)
    return End(0, last.page_size, last.pages, salts, total)


def _frames(last: End, changed: Iterable[tuple[int, bytes]], pages: int) -> Iterator[bytes]:
    total, waiting = last.checksum, list[tuple[int, bytes]]()
    for item in changed:
        for number, page in waiting:
            frame, total = _frame(last, number, page, 0, total)
            yield frame
        waiting = [item]
    for number, page in waiting:
        frame, _ = _frame(last, number, page, pages, total)
        yield frame


def _frame(
    last: End, number: int, page: bytes, pages: int, before: Checksum
) -> tuple[bytes, Checksum]:
    head = number.to_bytes(4, "big") + pages.to_bytes(4, "big")
    total = checksum(array("I", head + page), before)
    return _FRAME.pack(number, pages, last.salts, *total) + page, total


def _batches(frames: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    for frame in frames:
        held.append(frame)
        if len(held) * len(frame) >= _WRITE:
            yield b"".join(held)
            held.clear()
    yield b"".join(held)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += os.pwrite(descriptor, rest[done:], offset + done)
