"""The index, kept for the next process: a file that changes nothing but speed.

To parse the index files of a gigabyte takes a fifth of a second, of ten gigabytes two seconds;
every backup from a terminal needs them, and every restore twice. What they hold follows from their
names, which are digests, so an index made of files that are all there now is the index of those
files, and only later ones are read. Where one has gone, it is not believed.

    file = index files (4) │ 32 bytes each │ the index      under a checksum (`local_cache.py`)

It holds no data, only digests. A restore proves each blob by its id wherever it was said to lie,
and drops this file when one was not what it should be. Whoever proves what is in the repository,
verify, check, drill and prune, reads the index files themselves.
"""

import logging
import struct
from collections.abc import Set
from pathlib import Path

from anyio import to_thread

from mcp_backup.format.ids import ID_SIZE, BlobId, IndexId
from mcp_backup.repository.blob_index import BlobIndex, Recalled
from mcp_backup.repository.local_cache import LocalCache
from mcp_backup.repository.repository import Repository

logger = logging.getLogger(__name__)

_COUNT = struct.Struct("<I")
_PURPOSE = "mcp-backup 2026-11 index, checksum"
_FEW = 2_000  # blobs, whose index files are parsed as fast as this is read
_BEHIND = 8  # index files that the kept index may lack


class IndexCache:
    """The file at `path`, for one repository. Its methods never fail."""

    def __init__(self, path: Path, repository: Repository) -> None:
        """Nothing is read or written yet."""
        self._path, self._repository = path, repository
        self._files = LocalCache(repository, _PURPOSE)
        self._kept: Set[IndexId] = frozenset()
        self._newest: BlobId | None = None  # of the trees that the file knows to be whole

    async def load(self, *, trusted: bool) -> None:
        """Have the repository load its index: what was kept, if that is trusted, and the rest."""
        if trusted:
            await self._repository.recall_index(self._load)
        await self._repository.load_index()

    async def keep(self) -> None:
        """Keep the index that the repository has in memory, if that is more than was kept."""
        known = self._repository.index_known
        if known is None:
            return
        index, made_of = known
        behind = len(made_of - self._kept)
        if len(index) < _FEW or (behind < _BEHIND and index.newest_whole == self._newest):
            return
        self._kept, self._newest = frozenset(made_of), index.newest_whole
        parts = [_COUNT.pack(len(made_of)), *made_of, *index.frozen()]
        await to_thread.run_sync(self._save, parts)

    async def drop(self) -> None:
        """Keep nothing, and forget what the repository has in memory of it."""
        self._kept, self._newest = frozenset(), None
        await self._repository.forget_index()
        await to_thread.run_sync(self._remove)

    def _load(self) -> Recalled | None:
        body = self._files.read(self._path)
        if body is None:
            return None
        (count,) = _COUNT.unpack_from(body)
        end = _COUNT.size + count * ID_SIZE
        ids = (bytes(body[at : at + ID_SIZE]) for at in range(_COUNT.size, end, ID_SIZE))
        index, self._kept = BlobIndex.thawed(body[end:]), frozenset(map(IndexId, ids))
        self._newest = index.newest_whole
        return index, self._kept

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the index that was kept could not be removed: %s", error)

    def _save(self, parts: list[bytes]) -> None:
        try:
            self._files.write(self._path, parts)
        except OSError as error:
            logger.warning("the index was not kept, the next backup is slower: %s", error)
