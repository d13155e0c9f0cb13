"""Segments: as which chunks the last backup stored each 64 KiB of an image, kept on this machine.

A capture takes the BLAKE3 of every segment anyway, for the end-to-end digest. Where it is that of
the last run, the chunks are those of the last run, and need neither SHA-256 nor zstd, nor even to
travel to a worker. That is all this is for: what it says is true of the bytes for ever, whatever
was stored, pruned or replaced since, so the writer still looks up each chunk in the index.

    file = chunk size (4) │ segments (4) │ 32 bytes a segment │ 32 bytes a chunk

It lies under a checksum (`local_cache.py`). Deleting, swapping or spoiling it at any time changes
nothing but speed (`tests/backup/test_segments.py`). It holds no data, only digests of it.
"""

import logging
import os
import struct
from pathlib import Path

from anyio import to_thread
from blake3 import blake3
from msgspec import Struct

from mcp_backup.format.crypto import Buffer
from mcp_backup.format.ids import ID_SIZE
from mcp_backup.repository.local_cache import LocalCache
from mcp_backup.repository.repository import Repository
from mcp_backup.sources.digest import SEGMENT

logger = logging.getLogger(__name__)

_DIGEST = 32
_SIZES = struct.Struct("<II")
_PURPOSE = "mcp-backup 2026-11 segments of images, checksum"


class Segments(Struct, frozen=True):
    """An image in digests: 32 bytes a started segment, and the ids of the chunks they make up.

    `chunk_size` divides a segment.
    """

    chunk_size: int
    digests: Buffer = b""
    chunks: Buffer = b""

    def known(self, offset: int, digests: bytes) -> bytes:
        """Return the chunks of the segments that begin at `offset`: 32 bytes each, or zeros.

        `digests` are the segments' now; b"" when none is as it was.
        """
        per_segment = SEGMENT // self.chunk_size * ID_SIZE
        first = offset // SEGMENT
        if first * _DIGEST >= len(self.digests):
            return b""
        was = self.digests[first * _DIGEST : first * _DIGEST + len(digests)]
        chunks = memoryview(self.chunks)[first * per_segment :]
        count = len(digests) // _DIGEST
        if was == digests:
            return bytes(chunks[: count * per_segment])
        found = bytearray()
        for n in range(count):
            at = n * _DIGEST
            same = was[at : at + _DIGEST] == digests[at : at + _DIGEST]
            mine = chunks[n * per_segment : (n + 1) * per_segment] if same else b""
            found += mine or bytes(per_segment)
        return bytes(found) if any(found) else b""


class SegmentCache:
    """The segments of every image that was backed up from here, a file each in `directory`."""

    def __init__(self, directory: Path, repository: Repository, *, whole: bool = False) -> None:
        """Keep what is known for one repository; nothing is looked at or made yet.

        With `whole`, nothing is known until it is saved.
        """
        self._directory, self._whole = directory, whole
        self._files = LocalCache(repository, _PURPOSE)

    @property
    def any_kept(self) -> bool:
        """Whether something is known: then most of a large image need not be sealed again."""
        return not self._whole and self._directory.is_dir()

    async def load(self, place: str, chunk_size: int) -> Segments:
        """Return what is known of the image at `place` in a snapshot; nothing is a fine answer."""
        return await to_thread.run_sync(self._load, place, chunk_size)

    async def save(self, place: str, segments: Segments) -> None:
        """Keep what is known now; where that fails, the next backup is slower."""
        await to_thread.run_sync(self._save, place, segments)

    def _path(self, place: str) -> Path:
        return self._directory / blake3(os.fsencode(place)).hexdigest()[:32]

    def _load(self, place: str, chunk_size: int) -> Segments:
        nothing = Segments(chunk_size)
        if self._whole:
            return nothing
        body = self._files.read(self._path(place))
        if body is None:
            return nothing
        size, count = _SIZES.unpack_from(body)
        if size != chunk_size:
            return nothing
        end = _SIZES.size + count * _DIGEST
        return Segments(size, body[_SIZES.size : end], body[end:])

    def _save(self, place: str, segments: Segments) -> None:
        sizes = _SIZES.pack(segments.chunk_size, len(segments.digests) // _DIGEST)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._directory.chmod(0o700)  # whatever the umask
            self._files.write(self._path(place), (sizes, segments.digests, segments.chunks))
        except OSError as error:
            logger.warning("segments of %s not kept, the next backup is slower: %s", place, error)
