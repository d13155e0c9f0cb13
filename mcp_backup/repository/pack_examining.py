"""Examining packs: is every byte of a pack what its name, its header and the index say?

In a thread, one blob after the other; or in a sealing pool, a slot full of blobs at a time. The
pool only tells that all is well: where it is not, the thread finds out what is damaged.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from anyio import to_thread

from mcp_backup.arena import SLACK, SLOT_SIZE
from mcp_backup.errors import IntegrityError
from mcp_backup.format.crypto import MasterKey, Sealer
from mcp_backup.format.ids import PackId, digest
from mcp_backup.format.pack import PackEntry, decode_header, sealed_header_length
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.repository import Repository, unseal_blob
from mcp_backup.repository.sealing import PIECE
from mcp_backup.tasks import task_group
from mcp_backup.verbs import CheckFinding

PackExaminer = Callable[[PackId, Sequence[PackEntry]], Awaitable[Sequence[CheckFinding]]]

_NAMED_BLOBS = 20  # damaged blobs of one pack that are named; a wiped pack has thousands
_ROOM = SLOT_SIZE + SLACK  # sealed bytes that a slot takes


def in_threads(repository: Repository) -> PackExaminer:
    """Return an examiner that reads a pack whole and judges it in a thread."""

    async def examine(pack: PackId, entries: Sequence[PackEntry]) -> Sequence[CheckFinding]:
        data = await repository.store.get(pack_name(pack))
        return await to_thread.run_sync(examine_pack, repository.key, pack, entries, data)

    return examine


def in_pool(repository: Repository, pool: SealingPool) -> PackExaminer:
    """Return an examiner that has the pool's workers prove a pack's blobs."""

    async def examine(pack: PackId, entries: Sequence[PackEntry]) -> Sequence[CheckFinding]:
        data = await repository.store.get(pack_name(pack))
        proof = _Proof(pool, memoryview(data))
        async with task_group() as tasks:
            for batch in _batches(entries):
                slot = await pool.slots.take()
                tasks.start_soon(proof.prove, slot, batch)
            findings = await to_thread.run_sync(_examine_frame, repository.key, pack, entries, data)
        if proof.failed:
            return await to_thread.run_sync(examine_pack, repository.key, pack, entries, data)
        return findings

    return examine


class _Proof:
    """The blobs of one pack, `data`, being proven by a pool."""

    def __init__(self, pool: SealingPool, data: memoryview) -> None:
        self.failed = False
        self._pool, self._data = pool, data

    async def prove(self, slot: int, batch: Sequence[PackEntry]) -> None:
        """Prove a batch, neighbours all, in a slot, which is given back."""
        start, end = batch[0].offset, batch[-1].offset + batch[-1].length
        sealed = self._data[start:end]
        pieces = b"".join(
            PIECE.pack(entry.offset - start, entry.length, entry.plain_length, 0, entry.id)
            for entry in batch
        )
        try:
            if len(sealed) < end - start:  # what the slot held before is not of this pack
                self.failed = True
            elif len(sealed) > _ROOM:
                await self._pool.unseal_bytes(bytes(sealed), pieces)
            else:
                self._pool.arena.sealed(slot)[: len(sealed)] = sealed
                await self._pool.unseal(slot, pieces)
        except IntegrityError:
            self.failed = True
        finally:
            self._pool.slots.give_back(slot)


def _batches(entries: Sequence[PackEntry]) -> Iterator[list[PackEntry]]:
    """Join neighbours, in the order of their offsets, into batches that fit a slot."""
    batch: list[PackEntry] = []
    for entry in entries:
        if batch and entry.offset + entry.length - batch[0].offset > _ROOM:
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


def examine_pack(
    key: MasterKey, pack: PackId, entries: Sequence[PackEntry], data: bytes
) -> list[CheckFinding]:
    """Judge the bytes of one pack against its name and its entries in the index."""
    name, sealer = pack_name(pack), Sealer(key)
    findings = _examine_frame(key, pack, entries, data)
    damaged = list(_damaged(sealer, entries, memoryview(data)))
    for subject, fact in damaged[:_NAMED_BLOBS]:
        findings.append(CheckFinding("damaged-blob", subject, f"{name}: {subject}: {fact}"))
    if (more := len(damaged) - _NAMED_BLOBS) > 0:
        findings.append(CheckFinding("damaged-blob", name, f"{name}: and {more} more blobs"))
    return findings


def _examine_frame(
    key: MasterKey, pack: PackId, entries: Sequence[PackEntry], data: bytes
) -> list[CheckFinding]:
    """Judge everything but the blobs: the pack's hash, and its header against the index."""
    name, sealer = pack_name(pack), Sealer(key)
    findings = []
    if digest(data) != pack:
        fact = f"{name}: {len(data)} bytes do not hash to its name"
        findings.append(CheckFinding("damaged-pack", name, fact))
    try:
        header = _header(sealer, data)
    except IntegrityError as error:
        findings.append(CheckFinding("damaged-pack", name, f"{name}: {error}"))
    else:
        if header != list(entries):
            fact = f"{name}: its header and the index disagree about its {len(header)} blobs"
            findings.append(CheckFinding("damaged-index", name, fact))
    return findings


def _header(sealer: Sealer, data: bytes) -> list[PackEntry]:
    length = sealed_header_length(data[-4:], len(data))
    return decode_header(sealer.unseal(data[-4 - length : -4]))


def _damaged(
    sealer: Sealer, entries: Sequence[PackEntry], data: memoryview
) -> Iterable[tuple[str, str]]:
    for entry in entries:
        sealed = data[entry.offset : entry.offset + entry.length]
        try:
            unseal_blob(sealer, entry.id, sealed, entry.plain_length)
        except IntegrityError as error:
            yield f"{entry.kind.word} blob {entry.id.hex()}", str(error)
