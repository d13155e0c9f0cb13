"""Blobs: pieces of files and directory listings, named by their plaintext, compressed with zstd.

Source: restic design, "Pack Format" and "Compression"; restic internal/repository.
"""

from enum import IntEnum

from mcp_backup.errors import IntegrityError
from mcp_backup.format.crypto import Buffer
from mcp_backup.format.zstd import Inflater, ZstdCompressor


class BlobKind(IntEnum):
    """What a blob holds: part of a file, or a directory listing."""

    DATA = 0
    TREE = 1

    @property
    def word(self) -> str:
        """The kind as index files spell it."""
        return self.name.lower()


# Bytes of plaintext that are held in memory, whatever a repository says: restic cuts files into
# 8 MiB at most; the list of a million files in one directory, or of a file's chunks, is large.
MAX_BLOB = {BlobKind.DATA: 64 << 20, BlobKind.TREE: 512 << 20}


class Compressor:
    """Compresses blobs at one level. Keeps zstd's context, so: one per thread."""

    def __init__(self, level: int = 1) -> None:
        """Set up a context for `level`: 1 is fast, 22 the most."""
        self._context = ZstdCompressor(level=level)

    def compress(self, plaintext: Buffer) -> bytes | None:
        """Return `plaintext` as one zstd frame, or None where that would not be smaller.

        For data blobs. An empty blob is never compressed: the format has no way to say so.
        """
        frame = self._context.compress(plaintext)
        return frame if len(frame) < len(plaintext) else None

    def frame(self, plaintext: Buffer) -> bytes:
        """Return `plaintext`, which is not empty, as one zstd frame, smaller or not.

        For tree blobs: restic's prune rewrites packs that hold uncompressed ones.
        """
        if not len(plaintext):
            raise ValueError("an empty blob cannot be stored compressed")
        return self._context.compress(plaintext)


class Decompressor:
    """Decompresses blobs. Keeps zstd's context, so: one per thread."""

    def __init__(self) -> None:
        """Set up a context."""
        self._context = Inflater()

    def decompress(self, data: Buffer, length: int) -> bytes:
        """Return the plaintext of `data`, which is exactly `length` bytes.

        Raises:
            IntegrityError: not zstd, or more or less than `length` bytes.
        """
        plaintext = self._context.inflate(data, length)
        if len(plaintext) != length:
            raise IntegrityError(f"blob: {len(plaintext)} bytes decompressed, wanted {length}")
        return plaintext


def compress(plaintext: Buffer, level: int = 1) -> bytes | None:
    """Return `plaintext` as one zstd frame, or None where that would not be smaller."""
    return Compressor(level).compress(plaintext)
