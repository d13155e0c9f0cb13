"""Repack: carry out the plan of a prune, so that a crash at any point loses nothing.

    1. delete packs that no index lists            frees room for what follows
    2. write what is needed of partly needed packs into new packs, and list those in new index files
    3. list the packs that are kept in new index files
    4. read the new index files back: together they must list everything needed, in packs that
       are there in full
    5. delete the old index files
    6. delete the packs that went

Until 5 begins everything is where it was; from then on the new index files are complete. What a
crash leaves behind are blobs that lie twice and packs in no index, which the next prune removes.

Sealed blobs are copied as they are, once they were unsealed and hashed to their ids; so is every
kept blob of which another copy goes, as the one that goes could have been the only intact one.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import anyio
from anyio import from_thread, to_thread
from msgspec import Struct

from mcp_backup.arena import SLACK, SLOT_SIZE
from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind, Compressor
from mcp_backup.format.crypto import MasterKey, Sealer
from mcp_backup.format.ids import BlobId, IndexId, PackId
from mcp_backup.format.index import PackListing, encode_index
from mcp_backup.format.pack import PackEntry, pack_size
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.repository.blob_index import BlobIndex
from mcp_backup.repository.concurrency import for_each
from mcp_backup.repository.objects import about, identity_in, pack_name
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.prune import Fate, PackPlan, PrunePlan, numbered
from mcp_backup.repository.reachable import Marks
from mcp_backup.repository.repository import Repository, unseal_blob
from mcp_backup.repository.sealing import PIECE
from mcp_backup.repository.writer import Writer, writing
from mcp_backup.verbs import PruneReport

_READ = SLOT_SIZE + SLACK  # the largest read: what a slot takes
_GAP = 64 << 10  # reading over a gap this small is cheaper than a second request
_READS_AT_ONCE = 4
_INDEX_BLOBS = 16_000  # as the writer's, for the same memory
_DAMAGED = (
    "Run `mcp-backup check --level data` to see what is affected. Nothing that a snapshot needs "
    "was deleted."
)


async def execute(
    repository: Repository, plan: PrunePlan, pool: SealingPool, listener: Listener = nobody
) -> PruneReport:
    """Do what the plan says, under the exclusive lock it was made under.

    A failure, cancel or crash leaves a repository in which every snapshot is whole; another
    prune finishes.

    Raises:
        IntegrityError: a blob to be copied is damaged; nothing that a snapshot needs was deleted.
    """
    assert repository.exclusive, "pruning without an exclusive lock"
    began, before = anyio.current_time(), await _stored(repository)
    work = _Prune(repository, plan, pool, listener)
    await work.delete_packs([each for each in plan.of(Fate.DELETE) if not each.indexed])
    if plan.rewrites_index:
        old = await repository.store.objects("index/")
        await work.prove_last_copies()
        await work.copy()
        await work.write_index()
        await work.prove_index((await repository.store.objects("index/")).keys() - old.keys())
        await for_each(repository.store.delete, old)
        await work.delete_packs([p for p in plan.of(Fate.DELETE, Fate.REPACK) if p.indexed])
        await repository.load_index(refresh=True)
    freed = before - await _stored(repository)
    return plan.report(freed=freed, duration_seconds=anyio.current_time() - began)


async def _stored(repository: Repository) -> int:
    store = repository.store
    return sum([sum((await store.objects(under)).values()) for under in ("data/", "index/")])


class _Read(Struct, frozen=True):
    """One request to the store, and the blobs in it that are wanted."""

    pack: PackId
    offset: int
    length: int
    entries: tuple[PackEntry, ...]


class _Prune:
    """One prune under way; its methods are called in the order of the module's docstring."""

    def __init__(
        self, repository: Repository, plan: PrunePlan, pool: SealingPool, listener: Listener
    ) -> None:
        self._repository, self._store = repository, repository.store
        self._plan, self._index = plan, plan.index
        self._pool, self._listener = pool, listener
        self._kept = [each.pack for each in plan.of(Fate.KEEP)]
        self._going = [each.pack for each in plan.of(Fate.REPACK, Fate.DELETE) if each.indexed]
        self._placed = Marks(len(plan.index))  # needed blobs that a kept or a new pack holds
        self._done = 0

    async def delete_packs(self, packs: Collection[PackPlan]) -> None:
        total, done = sum(each.size for each in packs), 0

        async def delete(each: PackPlan) -> None:
            nonlocal done
            await self._store.delete(pack_name(each.pack))
            done += each.size
            await self._listener(Progress("delete", "packs", done, total))

        await for_each(delete, packs)

    async def prove_last_copies(self) -> None:
        """Prove each needed blob of a kept pack of which another copy goes."""
        doubtful = await to_thread.run_sync(self._place)
        if not len(doubtful):
            return

        async def prove(read: _Read) -> None:
            await self._proven(read)

        reads = (_reads(pack, self._among(pack, doubtful)) for pack in self._kept)
        await for_each(prove, chain.from_iterable(reads), _READS_AT_ONCE)

    def _place(self) -> Marks:
        for pack in self._kept:
            from_thread.check_cancelled()
            for _, number in numbered(self._index, pack):
                if number in self._plan.used:
                    self._placed.mark(number)
        doubtful = Marks(len(self._index))
        for pack in self._going:
            from_thread.check_cancelled()
            for _, number in numbered(self._index, pack):
                if number in self._placed:
                    doubtful.mark(number)
        return doubtful

    def _among(self, pack: PackId, marks: Marks) -> Iterator[PackEntry]:
        return (entry for entry, number in numbered(self._index, pack) if number in marks)

    async def copy(self) -> None:
        """Copy what is needed, and in no kept pack, into new packs; list those."""
        packs = self._plan.of(Fate.REPACK)
        total = sum(each.used for each in packs)

        async def copy(read: _Read) -> None:
            await self._hand_over(read, await self._proven(read), writer)
            self._done = min(self._done + read.length, total)
            await self._listener(Progress("repack", "packs", self._done, total))

        async with writing(self._repository, self._pool) as writer:
            reads = (_reads(each.pack, self._to_copy(each.pack)) for each in packs)
            await for_each(copy, chain.from_iterable(reads), _READS_AT_ONCE)
            await writer.flush()

    def _to_copy(self, pack: PackId) -> Iterator[PackEntry]:
        for entry, number in numbered(self._index, pack):
            if number in self._plan.used and self._placed.mark(number):
                yield entry

    async def _proven(self, read: _Read) -> bytes:
        """Return what a read gives, each wanted blob in it proven by its id."""
        name = pack_name(read.pack)
        pieces = b"".join(
            PIECE.pack(e.offset - read.offset, e.length, e.plain_length, 0, e.id)
            for e in read.entries
        )
        slot = await self._pool.slots.take()
        try:
            with about(name, _DAMAGED):
                data = await self._store.get(name, read.offset, read.length)
                if len(data) > _READ:
                    await self._pool.unseal_bytes(data, pieces)
                else:
                    self._pool.arena.sealed(slot)[: len(data)] = data
                    await self._pool.unseal(slot, pieces)
        finally:
            self._pool.slots.give_back(slot)
        return data

    async def _hand_over(self, read: _Read, data: bytes, writer: Writer) -> None:
        for kind in BlobKind:
            blobs, sizes, parts = list[BlobId](), list[int](), list[bytes]()
            for entry in read.entries:
                if entry.kind is not kind:
                    continue
                start = entry.offset - read.offset
                part, plain_length = data[start : start + entry.length], entry.plain_length
                if kind is BlobKind.TREE and not plain_length:
                    part, plain_length = await to_thread.run_sync(
                        _compressed, self._repository.key, entry, part
                    )
                blobs.append(entry.id)
                sizes += len(part), plain_length
                parts.append(part)
            if blobs:
                await writer.save_sealed(kind, b"".join(parts), blobs, sizes)

    async def write_index(self) -> None:
        """List the kept packs in new index files."""
        listings: list[PackListing] = []
        count = 0
        for pack in self._kept:
            listings.append(PackListing(pack, tuple(self._index.entries(pack))))
            count += len(listings[-1].entries)
            if count >= _INDEX_BLOBS or pack is self._kept[-1]:
                document = await to_thread.run_sync(encode_index, listings)
                await self._repository.save_unpacked("index", document)
                listings, count = [], 0

    async def prove_index(self, names: Collection[str]) -> None:
        """Prove that these index files list all that is needed, in packs that are there."""
        sizes, listed = await self._store.objects("data/"), Marks(len(self._index))
        for name in names:
            listings = await self._repository.load_listings(IndexId(identity_in(name)))
            await to_thread.run_sync(self._mark_listed, name, listings, sizes, listed)
        unlisted = len(self._plan.used.without(listed))
        if unlisted:
            raise IntegrityError(
                f"the new index files lack {unlisted} blobs that snapshots need", hint=_DAMAGED
            )

    def _mark_listed(
        self,
        name: str,
        listings: Sequence[tuple[PackId, bytes]],
        sizes: Mapping[str, int],
        listed: Marks,
    ) -> None:
        going = frozenset(self._going)
        for pack, listing in listings:
            part = BlobIndex()
            part.add_packed(pack, listing)
            if pack in going or sizes.get(pack_name(pack)) != pack_size(part.entries(pack)):
                raise IntegrityError(
                    f"{name} lists {pack_name(pack)}, which is not there in full", hint=_DAMAGED
                )
            for entry in part.entries(pack):
                number = self._index.position(entry.kind, entry.id)
                assert number is not None
                listed.mark(number)


def _reads(pack: PackId, entries: Iterable[PackEntry]) -> Iterator[_Read]:
    """Join neighbours into reads that fit a slot; a larger blob is a read of its own."""
    batch: list[PackEntry] = []
    for entry in entries:
        if batch:
            start, end = batch[0].offset, batch[-1].offset + batch[-1].length
            if entry.offset > end + _GAP or entry.offset + entry.length - start > _READ:
                yield _read(pack, batch)
                batch = []
        batch.append(entry)
    if batch:
        yield _read(pack, batch)


def _read(pack: PackId, batch: Sequence[PackEntry]) -> _Read:
    start = batch[0].offset
    return _Read(pack, start, batch[-1].offset + batch[-1].length - start, tuple(batch))


def _compressed(key: MasterKey, entry: PackEntry, sealed: bytes) -> tuple[bytes, int]:
    """Seal a tree anew, compressed, as restic's prune does with those that are not."""
    plaintext = unseal_blob(Sealer(key), entry.id, sealed, entry.plain_length)
    return Sealer(key).seal(Compressor().frame(plaintext)), len(plaintext)
