"""The end-to-end digest of a file: BLAKE3 over the BLAKE3 digests of its 64 KiB segments.

    digest = "segments:" hex( BLAKE3( BLAKE3(segment 1) │ … │ BLAKE3(segment n) ) )

Segments are counted from the file's start, the last one may be shorter, an empty file has none.
Segments because an SQLite image streams its first page last, and because the same 32 bytes per
segment tell what changed since the last backup.
"""

import os
from io import FileIO

from blake3 import blake3

SEGMENT = 64 << 10
_PIECE = 16 * SEGMENT


def segments(content: bytes | bytearray | memoryview) -> bytes:
    """Return 32 bytes for each started 64 KiB of `content`, which begins on a segment's edge."""
    view = memoryview(content)
    return b"".join(
        blake3(view[start : start + SEGMENT]).digest() for start in range(0, len(view), SEGMENT)
    )


def of_segments(digests: bytes) -> str:
    """Return the digest of a file from its segments' digests, end to end in file order."""
    return f"segments:{blake3(digests).hexdigest()}"


def of_file(file: FileIO) -> str:
    """Return the digest of what is left to read in an unbuffered `file`."""
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    whole = blake3()
    while filled := fill(file, view):
        whole.update(segments(view[:filled]))
    return f"segments:{whole.hexdigest()}"


def of_path(path: str | os.PathLike[str]) -> str:
    """Return the digest of the file at `path`."""
    with open(path, "rb", buffering=0) as file:
        return of_file(file)


def fill(file: FileIO, view: memoryview) -> int:
    """Read until `view` is full or the file ends: segments must not depend on short reads."""
    filled = 0
    while filled < len(view):
        got = file.readinto(view[filled:])
        if not got:
            break
        filled += got
    return filled
