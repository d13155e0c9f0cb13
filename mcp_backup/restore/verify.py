"""Verify: does what is stored restore to what its source saw?

structure   every tree decodes and every blob below it is in the index, its pack in the store
data        and every byte of it is read back from the store, decrypted and hashed
restore     and it is rebuilt in scratch and examined like a live source, against the evidence
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex

from anyio import CancelScope, to_thread
from msgspec import Struct

from mcp_backup.errors import IntegrityError, StagingRejected
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, short
from mcp_backup.format.tree import Node
from mcp_backup.manifest import SourceRecord
from mcp_backup.progress import Listener, nobody
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.reader import prove_blobs
from mcp_backup.repository.repository import Repository
from mcp_backup.restore.examining import examined
from mcp_backup.restore.stager import in_bulk, stage
from mcp_backup.sources.source import Finding
from mcp_backup.verbs import Level


class Verifier(Struct, frozen=True):
    """Verifies sources of backups in one repository. `scratch` is worked in, and left as found."""

    repository: Repository
    pool: SealingPool
    scratch: Path
    listener: Listener = nobody

    async def verify(self, record: SourceRecord, tree: Node, level: Level) -> list[Finding]:
        """Verify one source; return what differs, nothing when all agrees.

        `tree` is the source's node in the snapshot. Findings that the manifest already holds are
        facts about the source, and not repeated. A cancel leaves nothing behind.

        Raises:
            StoreError: the store could not be read at all.
        """
        assert tree.subtree is not None, record.tree
        try:
            if level is Level.RESTORE:
                found = await self._rebuild(record, tree.subtree)
            else:
                blobs = await _blobs(self.repository, tree.subtree)
                if level is Level.DATA:
                    await prove_blobs(self.repository, self.pool, blobs, record.name, self.listener)
                found = []
        except (IntegrityError, StagingRejected) as error:
            return [Finding(error.code, record.tree, str(error))]
        known = set(record.findings)
        return [finding for finding in found if finding not in known]

    async def _rebuild(self, record: SourceRecord, tree: BlobId) -> list[Finding]:
        directory = self.scratch / token_hex(8)  # never a name out of a backup: it is removed
        try:
            write = in_bulk(self.repository, self.pool, self.listener)
            await stage(self.repository, tree, directory, write)
            return await examined(record, directory)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))


async def _blobs(repository: Repository, root: BlobId) -> Sequence[BlobId]:
    """Return every data blob below a tree, proving that each is in the index and its pack there."""
    index = await repository.load_index()
    packs: Mapping[str, int] = await repository.store.objects("data/")
    found: dict[BlobId, None] = {}
    waiting, seen = [root], set[BlobId]()
    while waiting:
        tree = waiting.pop()
        if tree in seen:
            continue
        seen.add(tree)
        for node in await repository.load_tree(tree):
            if node.subtree is not None:
                waiting.append(node.subtree)
            found.update(dict.fromkeys(node.content or ()))
    for blob in found:
        place = index.find(BlobKind.DATA, blob)
        if place is None:
            raise IntegrityError(f"blob {short(blob)} is in no index")
        name = f"data/{place.pack.hex()[:2]}/{place.pack.hex()}"
        if packs.get(name, 0) < place.offset + place.length:
            raise IntegrityError(f"{name} is missing or too short for blob {short(blob)}")
    return list(found)
