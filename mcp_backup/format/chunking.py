"""Where a file is cut into blobs.

Database images are cut at fixed offsets, since a changed page changes in its place. Everything
else is cut by content: a cut depends on the few bytes before it, so that an insertion moves the
cuts near it and no others.

Why this way to cut by content, and not a rolling hash: that needs a loop over every byte, which
in Python is a hundred times too slow. Here two passes of C do it: a translation of every byte to
one of four symbols, and a search for a word of seven. Random bytes hold the word once in
4 ** 7 = 16 KiB; runs of one byte never. Where the word is absent, cuts are MAX_CHUNK apart, and an
insertion moves them all: so it is with text in UTF-16.
"""

from collections.abc import Sequence
from itertools import accumulate

from mcp_backup.format.crypto import Buffer

MIN_CHUNK = 16 << 10  # below, a blob's own cost (150 bytes) is more than an edit saves
MAX_CHUNK = 1 << 20  # an arena slot, and what restic itself has on average

_FIXED_FINEST = 16 << 10  # DESIGN's measurements: 8 and 16 KiB cost the least over ten days
_FIXED_COARSEST = 64 << 10
_FIXED_MOST = 1 << 18  # chunks; 35 bytes each in every tree that lists the file: 9 MB

# Map and word are the evenest of 160 tried on Python, JSON (compact, indented), SQL, Markdown,
# digits, hexadecimal, base 64, machine code and noise: the word comes once in 12 to 46 KiB in each.
_SYMBOLS = bytes(byte * 167 >> 4 & 3 for byte in range(256))
_WORD = bytes((1, 2, 3, 2, 3, 3, 2))  # without 0, the symbol of a zero byte


def default_chunk_size(size: int, page_size: int) -> int:
    """Return the fixed cut for an image of `size` bytes, a multiple of `page_size`; in bytes.

    16 KiB up to 4 GiB, then as much as keeps the list of chunks short, up to 64 KiB. `page_size`
    is a power of two, or 0 where there are no pages.
    """
    chunk = _FIXED_FINEST
    while chunk < _FIXED_COARSEST and size > chunk * _FIXED_MOST:
        chunk *= 2
    return max(chunk, page_size)


def fixed(length: int, size: int) -> list[int]:
    """Return the lengths of the chunks that `length` bytes make when cut every `size` bytes."""
    whole, rest = divmod(length, size)
    return [size] * whole + ([rest] if rest else [])


def laid(lengths: Sequence[int]) -> list[int]:
    """Return start, length, start, length, … of pieces that lie end to end."""
    starts = accumulate(lengths, initial=0)
    return [number for piece in zip(starts, lengths, strict=False) for number in piece]


class ContentCutter:
    """Cuts a stream by its content. The cuts do not depend on how the stream was fed.

    Chunks are MIN_CHUNK to MAX_CHUNK bytes, the last one from 1. An empty stream has none.
    """

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._bytes = bytearray()
        self._symbols = bytearray()
        self._searched = 0  # where in the buffers a word might still begin

    def feed(self, data: Buffer) -> list[bytes]:
        """Take the next bytes of the stream; return the chunks that are complete now."""
        self._bytes += data
        self._symbols += bytes(data).translate(_SYMBOLS)
        chunks = []
        while cut := self._cut():
            chunks.append(self._take(cut))
        return chunks

    def finish(self) -> list[bytes]:
        """Return what is left at the end of the stream, if anything; be ready for another."""
        return [self._take(len(self._bytes))] if self._bytes else []

    def _cut(self) -> int:
        start = max(self._searched, MIN_CHUNK - len(_WORD))
        found = self._symbols.find(_WORD, start, MAX_CHUNK)
        if found >= 0:
            return found + len(_WORD)
        if len(self._symbols) >= MAX_CHUNK:
            return MAX_CHUNK
        self._searched = max(0, len(self._symbols) - len(_WORD) + 1)
        return 0

    def _take(self, size: int) -> bytes:
        chunk = bytes(memoryview(self._bytes)[:size])
        del self._bytes[:size]
        del self._symbols[:size]
        self._searched = 0
        return chunk
