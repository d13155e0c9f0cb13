"""Examining packs: is every byte of a pack what its name, its header and the index say?

In a thread, one blob after the other; or in a sealing pool, a slot full of blobs at a time. The
pool only tells that all is well: where it is not, the thread finds out what is damaged.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import accumulate

from anyio import to_thread

from mcp_backup.arena import SLACK, SLOT_SIZE
from mcp_backup.errors import IntegrityError
from mcp_backup.format.crypto import OVERHEAD, MasterKey, Sealer
from mcp_backup.format.ids import PackId, digest
from mcp_backup.format.pack import (
    PackEntry,
    decode_header,
    encode_header,
    sealed_header_length,
)
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
    """Return an examiner that has the pool's workers prove a pack's blobs, a slot at a time."""

    async def examine(pack: PackId, entries: Sequence[PackEntry]) -> Sequence[CheckFinding]:
        try:
            if await _Proof(repository, pool, pack).holds(entries):
                return ()
        except IntegrityError:
            pass  # which blobs are damaged, and what else, is found out below
        data = await repository.store.get(pack_name(pack))
        return await to_thread.run_sync(examine_pack, repository.key, pack, entries, data)

    return examine


class _Proof:
    """One pack being read once, from its start to its end: every byte hashed, every blob proven."""

    def __init__(self, repository: Repository, pool: SealingPool, pack: PackId) -> None:
        self._repository, self._pool, self._pack = repository, pool, pack
        self._name, self._whole = pack_name(pack), sha256()

    async def holds(self, entries: Sequence[PackEntry]) -> bool:
        """Tell whether the pack is what its name, its header and the index say.

        Raises:
            IntegrityError: a blob of it is not what its id says, or it ends too early.
        """
        if not entries or not _seamless(entries):
            return False
        async with task_group() as tasks:
            for batch in _batches(entries):
                slot = await self._pool.slots.take()
                try:
                    sealed = await self._read(slot, batch)
                except BaseException:
                    self._pool.slots.give_back(slot)
                    raise
                tasks.start_soon(self._prove, slot, batch, sealed)
        end = entries[-1].offset + entries[-1].length
        tail = await self._repository.store.get(self._name, end)
        await to_thread.run_sync(self._whole.update, tail)  # what the index lacks of a pack
        header = _header(Sealer(self._repository.key), tail, end + len(tail))
        return header == encode_header(entries) and self._whole.digest() == self._pack

    async def _read(self, slot: int, batch: Sequence[PackEntry]) -> bytes:
        """Read a batch into the slot and hash it; return it, if it is a blob too large for one."""
        start, end = batch[0].offset, batch[-1].offset + batch[-1].length
        sealed, store = b"", self._repository.store
        if end - start > _ROOM:
            sealed = await store.get(self._name, start, end - start)
            await to_thread.run_sync(self._whole.update, sealed)
        else:
            room = self._pool.arena.sealed(slot)[: end - start]
            await store.get_into(self._name, start, room)
            await to_thread.run_sync(self._whole.update, room)
        return sealed

    async def _prove(self, slot: int, batch: Sequence[PackEntry], sealed: bytes) -> None:
        """Prove a batch, neighbours all, in a slot, which is given back."""
        start = batch[0].offset
        pieces = b"".join(
            PIECE.pack(entry.offset - start, entry.length, entry.plain_length, 0, entry.id)
            for entry in batch
        )
        try:
            if sealed:
                await self._pool.unseal_bytes(sealed, pieces)
            else:
                await self._pool.unseal(slot, pieces)
        finally:
            self._pool.slots.give_back(slot)


def _seamless(entries: Sequence[PackEntry]) -> bool:
    """Whether the entries fill a pack from its start, one after the other."""
    ends = accumulate(entry.length for entry in entries)
    starts = [entry.offset for entry in entries]
    return starts == [0, *ends][:-1] and all(entry.length >= OVERHEAD for entry in entries)


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
        header = decode_header(_header(sealer, data, len(data)))
    except IntegrityError as error:
        findings.append(CheckFinding("damaged-pack", name, f"{name}: {error}"))
    else:
        if header != list(entries):
            fact = f"{name}: its header and the index disagree about its {len(header)} blobs"
            findings.append(CheckFinding("damaged-index", name, fact))
    return findings


def _header(sealer: Sealer, data: bytes, size: int) -> bytes:
    """Return the header that lies at the end of `data`, the end of a pack of `size` bytes."""
    length = sealed_header_length(data[-4:], size)
    return sealer.unseal(data[-4 - length : -4])


def _damaged(
    sealer: Sealer, entries: Sequence[PackEntry], data: memoryview
) -> Iterable[tuple[str, str]]:
    for entry in entries:
        sealed = data[entry.offset : entry.offset + entry.length]
        try:
            unseal_blob(sealer, entry.id, sealed, entry.plain_length)
        except IntegrityError as error:
            yield f"{entry.kind.word} blob {entry.id.hex()}", str(error)
