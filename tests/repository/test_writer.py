"""The writer: each blob once, packs of the size meant, and nothing lost when part of it fails."""

from collections import Counter
from collections.abc import Sequence

import anyio
import pytest
from anyio import lowlevel

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.errors import StoreFull
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.pack import TARGET_SIZE
from mcp_backup.repository.check import check
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.repository import Repository
from mcp_backup.repository.writer import writing
from mcp_backup.store.memory import MemoryStore
from mcp_backup.verbs import Level
from tests.doubles import FOREVER, Fault, FaultyStore, full
from tests.repository.pooling import PROCESSES, THREAD, Bench, bench, noise, words

CHUNK = 16 << 10
HOW = pytest.mark.parametrize("thread_bytes", [THREAD, PROCESSES], ids=["thread", "processes"])


def cut(data: bytes, size: int = CHUNK) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


async def stored(repository: Repository) -> Counter[tuple[BlobKind, BlobId]]:
    """How often each blob lies in the packs that the index files list."""
    index = await repository.load_index(refresh=True)
    return Counter((e.kind, e.id) for pack in index.packs() for e in index.entries(pack))


async def fresh(it: Bench) -> Repository:
    """The same repository as somebody sees it who opens it now."""
    return Repository(
        it.repository.store, it.repository.config, it.repository.key, it.repository.now, "", ""
    )


@HOW
async def test_each_blob_is_stored_once_however_often_and_however_concurrently_it_is_saved(
    thread_bytes: int,
) -> None:
    chunks = cut(words(SLOT_SIZE // 2, 1)) + cut(noise(SLOT_SIZE // 2, 1))
    async with bench(thread_bytes) as it:
        async with it.writer() as writer, anyio.create_task_group() as tasks:
            for shift in range(6):
                tasks.start_soon(it.save, writer, chunks[shift:] + chunks[:shift])
            for _ in range(3):
                tasks.start_soon(writer.save, BlobKind.DATA, chunks[0])
                tasks.start_soon(writer.save, BlobKind.TREE, b'{"nodes":[]}\n')
        async with it.writer() as writer:  # and not again by the next
            await it.save(writer, chunks)
            assert writer.totals.blobs == writer.totals.stored == 0
        found = await stored(await fresh(it))
    wanted = {(BlobKind.DATA, digest(chunk)) for chunk in chunks}
    assert found == Counter(wanted | {(BlobKind.TREE, digest(b'{"nodes":[]}\n'))})


@HOW
async def test_what_comes_again_among_much_that_is_new_is_stored_once(thread_bytes: int) -> None:
    fresh_words = [cut(words(SLOT_SIZE, n)) for n in range(4)]
    small = [chunk[: 1000 + n] for n, chunk in enumerate(cut(noise(SLOT_SIZE // 2, 9)))]
    mixed = small + fresh_words[0][:3] + [small[0], small[5]] + cut(noise(SLOT_SIZE // 4, 10))
    slots = [*fresh_words, mixed, fresh_words[1], mixed[::-1], small]
    async with bench(thread_bytes) as it:
        async with it.writer() as writer:
            ids = [await it.save(writer, chunks) for chunks in slots]
        other = await fresh(it)
        found = await stored(other)
        for chunks, blobs in zip(slots, ids, strict=True):
            assert await Bench(other, it.pool).load(blobs) == b"".join(chunks)
        assert (await check(it.repository, Level.DATA)).findings == ()
    assert found == Counter({(BlobKind.DATA, digest(c)) for chunks in slots for c in chunks})


@HOW
async def test_everything_is_indexed_and_reads_back_after_a_flush(thread_bytes: int) -> None:
    data = [words(SLOT_SIZE, n) for n in range(3)] + [noise(SLOT_SIZE - 1, n) for n in range(3)]
    blobs: dict[int, Sequence[BlobId]] = {}
    async with bench(thread_bytes) as it:

        async def save(n: int) -> None:
            blobs[n] = await it.save(writer, cut(data[n]))

        async with writing(it.repository, it.pool) as writer:
            async with anyio.create_task_group() as tasks:
                for n in range(len(data)):
                    tasks.start_soon(save, n)
            await writer.flush()
            other = await fresh(it)  # before the writer is closed: a flush is a promise
            read = Bench(other, it.pool)
            for n, whole in enumerate(data):
                assert await read.load(blobs[n]) == whole
            indexed = {pack_name(pack) for pack in (await other.load_index()).packs()}
        assert indexed == set(await it.repository.store.objects("data/"))
        assert (await check(it.repository, Level.DATA)).findings == ()


async def test_packs_are_of_the_target_size_and_at_most_a_slot_more() -> None:
    slots = 13
    async with bench() as it:
        async with it.writer() as writer:
            for n in range(slots):
                await it.save(writer, cut(noise(SLOT_SIZE, n)))
        sizes = sorted((await it.repository.store.objects("data/")).values())
    assert sum(sizes) > slots * SLOT_SIZE
    assert all(TARGET_SIZE <= size < TARGET_SIZE + SLOT_SIZE + (64 << 10) for size in sizes[1:])


class HeldStore(MemoryStore):
    """A store on which nothing is stored before it is released."""

    released: anyio.Event

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        await self.released.wait()
        await super().put(name, data)


async def test_two_packs_at_most_are_in_memory_however_slow_the_store_is() -> None:
    slots = 30
    async with bench() as it:
        fast, store = it.repository.store, HeldStore()
        assert isinstance(fast, MemoryStore)
        store.contents, store.released = fast.contents, anyio.Event()
        slow = Bench(
            Repository(store, it.repository.config, it.repository.key, it.repository.now, "", ""),
            it.pool,
        )
        async with slow.writer() as writer, anyio.create_task_group() as tasks:
            for n in range(slots):
                blob = noise(SLOT_SIZE, n)
                identity = BlobId(digest(blob))
                tasks.start_soon(
                    writer.save_sealed, BlobKind.DATA, blob, [identity], [len(blob), 0]
                )
            await anyio.wait_all_tasks_blocked()
            assert 2 * TARGET_SIZE <= writer.totals.sealed <= 2 * (TARGET_SIZE + SLOT_SIZE)
            store.released.set()
        assert len(await stored(slow.repository)) == slots


async def test_totals_are_what_is_on_the_disk() -> None:
    chunks = cut(words(SLOT_SIZE // 2, 1)) + cut(noise(CHUNK * 4, 1))
    tree = b'{"nodes":[]}\n'
    async with bench() as it:
        before = sum((await it.repository.store.objects("")).values())
        async with it.writer() as writer:
            await it.save(writer, chunks[:50])
            await it.save(writer, chunks)
            await writer.save(BlobKind.TREE, tree)
        after = sum((await it.repository.store.objects("")).values())
        index = await it.repository.load_index()
        sealed = sum(e.length for pack in index.packs() for e in index.entries(pack))
        totals = writer.totals
    assert totals.plain == sum(map(len, set(chunks))) + len(tree)
    assert totals.blobs == len(set(chunks)) + 1
    assert totals.sealed == sealed
    assert totals.stored == after - before


@HOW
@pytest.mark.parametrize("steps", [1, 3, 8, 21])
async def test_what_a_cancelled_save_did_not_store_is_stored_by_the_next(
    thread_bytes: int, steps: int
) -> None:
    """A source that fails half way is left behind; the next one may hold the same chunks."""
    chunks = [cut(noise(SLOT_SIZE, n)) for n in range(6)]
    async with bench(thread_bytes) as it:
        async with it.writer() as writer:
            kept = await it.save(writer, cut(noise(SLOT_SIZE, 99)))
            async with anyio.create_task_group() as tasks:
                for part in chunks:
                    tasks.start_soon(it.save, writer, part)
                for _ in range(steps):
                    await lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            blobs = [await it.save(writer, part) for part in chunks]
        read = Bench(await fresh(it), it.pool)
        assert await read.load(kept) == noise(SLOT_SIZE, 99)
        for part, saved in zip(chunks, blobs, strict=True):
            assert await read.load(saved) == b"".join(part)


async def test_a_pack_that_waits_for_its_upload_survives_the_cancel_of_who_closed_it() -> None:
    """It holds other sources' blobs too."""
    slow = anyio.Event()

    class SlowStore(FaultyStore):
        async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
            await slow.wait()
            await self.store.put(name, data)

    async with bench() as it:
        inner = it.repository.store
        it.repository.store = SlowStore(inner)
        async with it.writer() as writer:
            fitting = range(TARGET_SIZE // SLOT_SIZE - 1)  # one more, and the pack is full
            first = [await it.save(writer, cut(noise(SLOT_SIZE, n))) for n in fitting]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(it.save, writer, cut(noise(SLOT_SIZE, len(fitting))))
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            slow.set()
        read = Bench(await fresh(it), it.pool)
        for n, saved in enumerate(first):
            assert await read.load(saved) == noise(SLOT_SIZE, n)


@HOW
async def test_a_full_store_is_told_as_such_while_slots_are_being_saved(
    thread_bytes: int,
) -> None:
    """Not as what fails next because of it."""
    async with bench(thread_bytes) as it:
        inner = it.repository.store
        it.repository.store = FaultyStore(
            inner, Fault("put", 2, error=full(), times=FOREVER, under="data/")
        )
        with pytest.raises(StoreFull, match="no space left"):
            await it.save_all([cut(noise(SLOT_SIZE, n)) for n in range(14)])
        it.repository.store = inner
        assert await stored(it.repository) == Counter()


async def test_after_a_failure_the_index_knows_only_what_index_files_list() -> None:
    """What was in packs that no index file names must be stored again."""
    chunks = cut(noise(SLOT_SIZE * 5, 1))
    async with bench() as it:
        inner = it.repository.store
        it.repository.store = FaultyStore(inner, Fault("put", 1, error=full(), under="index/"))
        with pytest.raises(StoreFull):
            await it.save_all([chunks[n * 128 : n * 128 + 128] for n in range(5)])
        it.repository.store = inner
        assert len(await inner.objects("data/")) == 2
        async with it.writer() as writer:
            blobs = await it.save(writer, chunks[:128])
            assert writer.totals.blobs == 128
        assert await Bench(await fresh(it), it.pool).load(blobs) == b"".join(chunks[:128])


async def test_a_tree_is_compressed_however_small() -> None:
    """restic's prune would rewrite one that is not."""
    tree = b'{"nodes":[]}\n'
    async with bench() as it:
        async with it.writer() as writer:
            identity = await writer.save(BlobKind.TREE, tree)
        found = (await it.repository.load_index()).find(BlobKind.TREE, identity)
        assert found is not None
        assert found.plain_length == len(tree)


async def test_nothing_saved_is_nothing_stored() -> None:
    async with bench() as it:
        before = await it.repository.store.objects("")
        async with it.writer() as writer:
            await writer.flush()
        assert await it.repository.store.objects("") == before
