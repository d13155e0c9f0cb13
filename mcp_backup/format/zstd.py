"""The one place that knows zstd's library.

`zstandard` and not the standard library's module: that one cannot use a decompressor twice, and
making one costs as much as decompressing 16 KiB.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zstandard import (
    ZstdCompressor,
    ZstdDecompressor,
    ZstdError,
    frame_content_size,
    frame_header_size,
    get_frame_parameters,
)

from mcp_backup.errors import IntegrityError

if TYPE_CHECKING:
    from zstandard import ZstdCompressionObj  # a name of the stubs alone

__all__ = ["Inflater", "ZstdCompressor", "frame_content_size", "inflate", "stream_compressor"]

_MAX_FRAMES = 1024  # several frames are legal; frames of no content could go on for hours
_PIECE = 1 << 20  # bytes of output asked for at a time where a frame does not say its size
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_RUN_LENGTH, _RESERVED = 1, 3  # kinds of blocks


def stream_compressor(level: int) -> "ZstdCompressionObj":
    """Return a compressor of one frame whose length is not known yet: `compress`, then `flush`."""
    return ZstdCompressor(level=level).compressobj()


def inflate(data: bytes | bytearray | memoryview, limit: int) -> bytes:
    """Decompress one or more whole zstd frames into at most `limit` bytes.

    Never makes more than `limit` + 1 bytes of output, and never needs a window above 128 MiB.

    Raises:
        IntegrityError: not zstd, cut short, with a dictionary, or longer than `limit`.
    """
    return Inflater().inflate(data, limit)


class Inflater:
    """Inflates many frames. Keeps zstd's context, so: one per thread."""

    def __init__(self) -> None:
        """Set up a context."""
        self._context = ZstdDecompressor()

    def inflate(self, data: bytes | bytearray | memoryview, limit: int) -> bytes:
        """Do what the function `inflate` does."""
        try:
            if 0 < frame_content_size(data) <= limit:
                try:
                    return self._context.decompress(data, allow_extra_data=False)
                except ZstdError:
                    pass  # several frames, or damage, which is found below
            return self._frames(memoryview(data), limit)
        except ZstdError as error:
            raise IntegrityError(f"zstd frame: {error}") from error

    def _frames(self, data: memoryview, limit: int) -> bytes:
        parts: list[bytes] = []
        room = limit
        for _ in range(_MAX_FRAMES):
            size = _frame_size(data)
            for part in self._parts(data[:size], room):
                parts.append(part)
                room -= len(part)
            if room < 0:
                parts.clear()  # or the error's traceback would hold them
                raise IntegrityError(f"zstd frames hold more than the {limit} bytes promised")
            data = data[size:]
            if not data:
                return b"".join(parts)
        raise IntegrityError(f"more than {_MAX_FRAMES} zstd frames where one is usual")

    def _parts(self, frame: memoryview, room: int) -> Iterator[bytes]:
        """Yield a frame's content, up to the piece that exceeds `room`."""
        with self._context.stream_reader(frame) as reader:
            while room >= 0 and (part := reader.read(min(_PIECE, room + 1))):
                room -= len(part)
                yield part


def _frame_size(data: memoryview) -> int:
    """Return the length of the frame that `data` begins with, by the headers of its blocks.

    Raises:
        IntegrityError, ZstdError: it is no frame, or not a whole one.

    Source: RFC 8878, 3.1.1.
    """
    if int.from_bytes(data[:4], "little") in _SKIPPABLE:
        end = 8 + int.from_bytes(data[4:8], "little")
    else:
        end, last = frame_header_size(data), False
        while not last:
            header = int.from_bytes(data[end : end + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            if kind == _RESERVED:
                raise IntegrityError("zstd frame: a block of a kind that does not exist")
            end += 3 + (1 if kind == _RUN_LENGTH else size)
            last = last or end > len(data)
        end += 4 if get_frame_parameters(data).has_checksum else 0
    if end > len(data):
        raise IntegrityError("zstd frame: cut short")
    return end
