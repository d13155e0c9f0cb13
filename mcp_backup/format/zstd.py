"""The one place that knows where zstd comes from: the standard library since Python 3.14."""

import sys

from mcp_backup.errors import IntegrityError

if sys.version_info >= (3, 14):
    from compression.zstd import (
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        get_frame_info,
        get_frame_size,
    )
else:
    from backports.zstd import (
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        get_frame_info,
        get_frame_size,
    )

__all__ = [
    "ZstdCompressor",
    "ZstdDecompressor",
    "ZstdError",
    "get_frame_info",
    "inflate",
]

_MAX_FRAMES = 1024  # several frames are legal; frames of no content could go on for hours


def inflate(data: bytes | bytearray | memoryview, limit: int) -> bytes:
    """Decompress one or more whole zstd frames into at most `limit` bytes.

    Never makes more than `limit` + 1 bytes of output, and never needs a window above 128 MiB.

    Raises:
        IntegrityError: not zstd, cut short, with a dictionary, or longer than `limit`.
    """
    try:
        decompressor = ZstdDecompressor()
        plaintext = decompressor.decompress(data, max_length=limit + 1)
        if decompressor.eof and not decompressor.unused_data and len(plaintext) <= limit:
            return plaintext
        return _inflate_frames(memoryview(data), limit)
    except ZstdError as error:
        raise IntegrityError(f"zstd frame: {error}") from error


def _inflate_frames(data: memoryview, limit: int) -> bytes:
    parts: list[bytes] = []
    room = limit
    for _ in range(_MAX_FRAMES):
        size = get_frame_size(data)  # which also tells that the frame is whole
        part = ZstdDecompressor().decompress(data[:size], max_length=room + 1)
        if len(part) > room:
            raise IntegrityError(f"zstd frames hold more than the {limit} bytes promised")
        parts.append(part)
        room -= len(part)
        data = data[size:]
        if not data:
            return b"".join(parts)
    raise IntegrityError(f"more than {_MAX_FRAMES} zstd frames where one is usual")
