"""The writer: new blobs into packs, packs into the store, their listing into the index.

The order is the guarantee: a pack is durable before any index file names it, index files are
durable before `flush` returns, and only then may a snapshot refer to the blobs. What a crash
leaves are packs and blobs that nothing refers to; `prune` removes them.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate, repeat
from mmap import MAP_PRIVATE, mmap
from operator import itemgetter

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec import Struct, field

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.format.blob import BlobKind, Compressor
from mcp_backup.format.chunking import laid
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import ID_SIZE, BlobId, PackId, digest, split
from mcp_backup.format.index import PackListing, encode_index
from mcp_backup.format.pack import (
    TARGET_SIZE,
    PackEntry,
    encode_header,
    encode_trailer,
    pack_size,
)
from mcp_backup.repository.blob_index import BlobIndex
from mcp_backup.repository.objects import object_name
from mcp_backup.repository.pool import DEFAULT_LEVEL, SealingPool
from mcp_backup.repository.repository import Repository
from mcp_backup.tasks import task_group

_INDEX_BLOBS = 8_000  # under restic's 50,000: to make or read an index file takes 700 bytes a blob
_BUFFER = TARGET_SIZE + 2 * SLOT_SIZE  # seldom outgrown; what is not used costs nothing
_BLOB = itemgetter(1)  # of a pack's entry
_UPLOADS = 1  # a pack being stored beside the one being filled: bounds memory to two packs


class Totals(Struct):
    """What a writer has added so far: new blobs, their bytes as they were and as sealed.

    `stored` is what the repository grew by: whole packs and index files.
    """

    blobs: int = 0
    plain: int = 0
    sealed: int = 0
    stored: int = 0


class _OpenPack(Struct):
    """A pack being filled: the `size` bytes in use are sealed blobs end to end, and what they are.

    The buffer is a mapping of its own, since the allocator keeps what is freed in such sizes.
    """

    kind: BlobKind
    buffer: mmap
    size: int = 0
    entries: list[PackEntry] = field(default_factory=list)

    @property
    def data(self) -> memoryview:
        return memoryview(self.buffer)[: self.size]

    def add(
        self, sealed: bytes | memoryview, blobs: Sequence[BlobId], sizes: Sequence[int]
    ) -> None:
        """Add sealed blobs that lie end to end; sizes are sealed and plain length of each."""
        lengths = sizes[::2]
        places = zip(
            repeat(self.kind),
            blobs,
            accumulate(lengths, initial=self.size),
            lengths,
            sizes[1::2],
            strict=False,  # a kind, and an offset, are left over
        )
        self.entries.extend(map(PackEntry._make, places))
        self.append(sealed)

    def append(self, data: bytes | memoryview) -> None:
        end = self.size + len(data)
        if end > len(self.buffer):
            larger = mmap(-1, 2 * end, MAP_PRIVATE)
            larger[: self.size] = self.data
            self.buffer = larger
        self.buffer[self.size : end] = data
        self.size = end


class Writer:
    """Adds blobs to a repository; each is stored once, however often it is saved.

    Calls may run concurrently. A cancelled `save` or `save_slot` may or may not have stored its
    blobs; those whose ids it did not return are saved again by whoever needs them. After any
    other failure the writer is not used again.
    """

    def __init__(
        self, repository: Repository, index: BlobIndex, pool: SealingPool, uploads: TaskGroup
    ) -> None:
        """Made by `writing`, which also ends it."""
        self.totals = Totals()
        self._repository, self._index, self._pool = repository, index, pool
        self._uploads = uploads
        self._room = anyio.Semaphore(_UPLOADS, fast_acquire=True)
        self._turn = anyio.Lock(fast_acquire=True)  # to append; kept while a full pack waits
        self._sealer, self._header_sealer = Sealer(repository.key), Sealer(repository.key)
        self._compressor = Compressor(DEFAULT_LEVEL)
        self._spare: list[mmap] = []  # the buffer of a pack that has been stored
        self._open: dict[BlobKind, _OpenPack] = {}
        self._closed: deque[_OpenPack] = deque()  # full, and not being stored yet
        self._claimed: dict[BlobKind, set[bytes]] = {  # saved, but not in the index yet
            kind: set() for kind in BlobKind
        }
        self._listings: list[PackListing] = []
        self._expects_new = False  # of the chunks of the next slot

    async def save(self, kind: BlobKind, plaintext: bytes) -> BlobId:
        """Save one blob, small enough to be sealed here: a tree, a manifest, a settings file."""
        blob = BlobId(digest(plaintext))
        if not self._claim(kind, blob):
            return blob
        if kind is BlobKind.TREE:  # restic's prune would rewrite an uncompressed one
            packed: bytes | None = self._compressor.frame(plaintext)
        else:
            packed = self._compressor.compress(plaintext)
        sealed = self._sealer.seal(plaintext if packed is None else packed)
        plain_length = 0 if packed is None else len(plaintext)
        await self._append(kind, sealed, (blob,), (len(sealed), plain_length))
        self.totals.plain += len(plaintext)
        return blob

    async def save_slot(self, slot: int, lengths: Sequence[int], known: bytes = b"") -> bytes:
        """Save the data chunks that fill a slot from its start; return their ids, 32 bytes each.

        `known` may say what the ids are, 32 bytes each, zeros where nothing is known. Such a chunk
        is taken for saved if it is in the index, and then is not even hashed. It may say more than
        there are chunks: the last segment of a file is seldom a whole one.

        The slot's content is gone afterwards. The caller owns the slot throughout.
        """
        known = known[: ID_SIZE * len(lengths)]
        asked = laid(lengths)
        if not known:
            return await self._save_chunks(slot, asked)
        unknown = self._index.missing(BlobKind.DATA, split(known))
        if not unknown:
            return known
        return _filled(known, unknown, await self._save_chunks(slot, _chosen(asked, unknown)))

    async def _save_chunks(self, slot: int, chunks: Sequence[int]) -> bytes:
        """Save those of the chunks that are new; return the ids of all.

        Where those of the last slot were, these most likely are too, as they are in all of a first
        backup: so they are sealed unasked, and what proves to be stored already is dropped.
        """
        sealed = self._pool.arena.sealed(slot)
        if self._expects_new:
            ids, sizes = await self._pool.hash_and_seal(slot, chunks)
            blobs = split(ids)
            new = self._claim_all(blobs)
            if len(new) < len(blobs):
                sizes = _gathered(sealed, sizes, new)
        else:
            ids = await self._pool.hash(slot, chunks)
            blobs = split(ids)
            new = self._claim_all(blobs)
            sizes = await self._sealed(slot, chunks, blobs, new) if new else ()
        self._expects_new = len(new) == len(blobs)
        if new:
            self.totals.plain += sum(chunks[2 * n + 1] for n in new)
            fresh = [blobs[n] for n in new]
            await self._append(BlobKind.DATA, sealed[: sum(sizes[::2])], fresh, sizes)
        return ids

    async def _sealed(
        self, slot: int, chunks: Sequence[int], blobs: Sequence[BlobId], new: Sequence[int]
    ) -> Sequence[int]:
        """Seal the new ones of the chunks, which have been claimed; return their sizes."""
        try:
            return await self._pool.seal(slot, _chosen(chunks, new))
        except BaseException:  # a source that fails is left behind, and others may hold these
            self._claimed[BlobKind.DATA].difference_update(blobs[n] for n in new)
            raise

    async def save_sealed(
        self,
        kind: BlobKind,
        sealed: bytes,
        blobs: Sequence[BlobId],
        sizes: Sequence[int],
    ) -> None:
        """Save blobs that lie sealed end to end; `sizes` are as `SealingPool.seal` returns them.

        The caller has proven them. They are saved whether or not the repository has them already.
        """
        await self._append(kind, sealed, blobs, sizes)

    async def flush(self) -> None:
        """Make everything saved so far durable and listed in the index."""
        for kind in BlobKind:
            await self._close_pack(kind)
        await self._upload()
        for _ in range(_UPLOADS):
            await self._room.acquire()
        await self._write_index()
        for _ in range(_UPLOADS):
            self._room.release()

    def _claim_all(self, blobs: Sequence[BlobId]) -> list[int]:
        """Claim data blobs; return the numbers of those that the caller has to save."""
        claimed, new = self._claimed[BlobKind.DATA], list[int]()
        for n in self._index.missing(BlobKind.DATA, blobs):
            if blobs[n] not in claimed:
                claimed.add(blobs[n])
                new.append(n)
        return new

    def _claim(self, kind: BlobKind, blob: BlobId) -> bool:
        """Tell whether the caller is the first to save this blob, and so has to."""
        claimed = self._claimed[kind]
        if blob in claimed or self._index.position(kind, blob) is not None:
            return False
        claimed.add(blob)
        return True

    async def _append(
        self,
        kind: BlobKind,
        sealed: bytes | memoryview,
        blobs: Sequence[BlobId],
        sizes: Sequence[int],
    ) -> None:
        """Add sealed blobs to the open pack; wait while a full one waits to be stored."""
        try:
            await self._turn.acquire()
        except BaseException:
            self._claimed[kind].difference_update(blobs)
            raise
        try:
            pack = self._open.get(kind) or self._new_pack(kind)
            pack.add(sealed, blobs, sizes)
            self.totals.blobs += len(blobs)
            self.totals.sealed += len(sealed)
            if pack.size >= TARGET_SIZE:
                await self._close_pack(kind)
        finally:
            self._turn.release()

    async def _close_pack(self, kind: BlobKind) -> None:
        pack = self._open.pop(kind, None)
        if pack is None:
            return
        self._closed.append(pack)
        await self._upload()

    def _new_pack(self, kind: BlobKind) -> _OpenPack:
        """Begin a pack, now that something is to go into it: then the last one may be stored."""
        buffer = self._spare.pop() if self._spare else mmap(-1, _BUFFER, MAP_PRIVATE)
        self._open[kind] = _OpenPack(kind, buffer)
        return self._open[kind]

    async def _upload(self) -> None:
        """Begin to store every closed pack; a cancel leaves those that wait to the next call."""
        while self._closed:
            await self._room.acquire()
            if self._closed:
                self._uploads.start_soon(self._store, self._closed.popleft())
            else:
                self._room.release()

    async def _store(self, pack: _OpenPack) -> None:
        name = await to_thread.run_sync(_finish, pack, self._header_sealer)
        await self._repository.store.put(f"data/{name.hex()[:2]}/{name.hex()}", pack.data)
        self.totals.stored += pack.size
        self._spare = [pack.buffer]
        self._listings.append(PackListing(name, tuple(pack.entries)))
        if sum(len(listing.entries) for listing in self._listings) >= _INDEX_BLOBS:
            await self._write_index()
        self._room.release()

    async def _write_index(self) -> None:
        if not self._listings:
            return
        listings, self._listings = self._listings, []
        identity, sealed = await to_thread.run_sync(
            lambda: self._repository.seal_unpacked(encode_index(listings))
        )
        await self._repository.store.put(object_name("index", identity), sealed)
        self.totals.stored += len(sealed)
        self._repository.index_written(identity, listings)
        for listing in listings:
            kind = listing.entries[0].kind  # of all in a pack
            self._claimed[kind].difference_update(map(_BLOB, listing.entries))


def _chosen(pairs: Sequence[int], places: Sequence[int]) -> list[int]:
    """Return the pairs of numbers at those places, end to end."""
    return [number for n in places for number in pairs[2 * n : 2 * n + 2]]


def _gathered(sealed: memoryview, sizes: Sequence[int], places: Sequence[int]) -> Sequence[int]:
    """Move the blobs at those places, of all that lie end to end, to the front; return their sizes.

    `sizes` are as `SealingPool.seal` returns them.
    """
    starts, end = list(accumulate(sizes[::2], initial=0)), 0
    for n in places:
        length = sizes[2 * n]
        sealed[end : end + length] = sealed[starts[n] : starts[n] + length]
        end += length
    return _chosen(sizes, places)


def _filled(ids: bytes, places: Sequence[int], found: bytes) -> bytes:
    """Return the ids with those in `found` at their places."""
    filled = bytearray(ids)
    for at, n in enumerate(places):
        filled[ID_SIZE * n : ID_SIZE * (n + 1)] = found[ID_SIZE * at : ID_SIZE * (at + 1)]
    return bytes(filled)


def _finish(pack: _OpenPack, sealer: Sealer) -> PackId:
    """Append the header to the pack and return its name."""
    pack.append(encode_trailer(sealer.seal(encode_header(pack.entries))))
    assert pack.size == pack_size(pack.entries)
    return PackId(digest(pack.data))


@asynccontextmanager
async def writing(repository: Repository, pool: SealingPool) -> AsyncIterator[Writer]:
    """Provide a writer for one backup; the caller holds a lock on the repository.

    Leaving without `flush`, by error or cancel, leaves at most packs that nothing refers to: the
    index learns of a blob only when an index file lists it, since another backup in this process
    may rely on what the index says.
    """
    index = await repository.load_index(refresh=True)
    async with task_group() as uploads:
        yield Writer(repository, index, pool, uploads)
