"""From slots to blobs: whatever the sizes, the order and who works, the bytes come back."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import anyio
import pytest
from anyio import from_thread, to_thread
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.backup.contents import ImageContent, StreamContent
from mcp_backup.backup.segments import Segments
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.repository.reader import file_size, stage_file
from mcp_backup.repository.writer import Writer
from mcp_backup.sources.digest import segments as digests
from tests.repository.pooling import PROCESSES, THREAD, Bench, bench

CHUNK_SIZES = (4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10)
HOW = pytest.mark.parametrize("thread_bytes", [THREAD, PROCESSES], ids=["thread", "processes"])
EXAMPLES = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
sizes = st.one_of(
    st.integers(0, 3 * SLOT_SIZE),
    st.sampled_from([0, 1, 4095, 4096, SLOT_SIZE - 1, SLOT_SIZE, SLOT_SIZE + 1, 2 * SLOT_SIZE]),
)


def data_of(size: int, seed: int) -> bytes:
    """Pages as databases have them: noise, text, zeros, and some that repeat."""
    random = Random(seed)  # noqa: S311 - the same ones for the same seed
    block = 8 << 10
    repeated = random.randbytes(block)
    pages = (
        lambda: random.randbytes(block),
        lambda: (random.randbytes(8).hex().encode() * block)[:block],
        lambda: bytes(block),
        lambda: repeated,
    )
    return b"".join(random.choice(pages)() for _ in range(size // block + 1))[:size]


def pieces(data: bytes) -> list[tuple[int, bytes]]:
    """The slots that a capture would fill: offset and content."""
    return [(at, data[at : at + SLOT_SIZE]) for at in range(0, len(data), SLOT_SIZE)]


async def image(it: Bench, writer: Writer, data: bytes, chunk_size: int, seed: int) -> list[BlobId]:
    """Save a file that nothing is known of as a database's image is."""
    return (await imaged(it, writer, data, Segments(chunk_size), seed))[0]


async def imaged(
    it: Bench, writer: Writer, data: bytes, before: Segments, seed: int
) -> tuple[list[BlobId], Segments]:
    """Save a file as a database's image is: slots side by side, in any order."""
    content = ImageContent(writer, before.chunk_size, before=before)
    filled = pieces(data)
    Random(seed).shuffle(filled)  # noqa: S311

    async def save(offset: int, part: bytes) -> None:
        slot = await it.pool.slots.take()
        it.pool.arena.content(slot)[: len(part)] = part
        await content.save(slot, offset, len(part), digests(part))
        it.pool.slots.give_back(slot)

    async with anyio.create_task_group() as tasks:
        for offset, part in filled:
            tasks.start_soon(save, offset, part)
    return list(content.finish()), content.segments


async def stream(it: Bench, writer: Writer, parts: Sequence[bytes]) -> list[BlobId]:
    """Save a file as any other is: slots one after the other, as full as they come."""
    content = StreamContent(writer, it.pool)
    slot = await it.pool.slots.take()
    for part in parts:
        it.pool.arena.content(slot)[: len(part)] = part
        await content.save(slot, len(part))
    it.pool.slots.give_back(slot)
    return list(await content.finish())


async def staged(it: Bench, content: Sequence[BlobId], path: Path) -> bytes:
    path.write_bytes(b"")
    written = await stage_file(it.repository, it.pool, content, path)
    found = path.read_bytes()
    assert written == len(found) == file_size(await it.repository.load_index(), content)
    return found


@HOW
async def test_an_image_comes_back_whatever_its_chunks_and_the_order_of_its_slots(
    thread_bytes: int, tmp_path: Path
) -> None:
    async with bench(thread_bytes) as it:

        async def round_trip(size: int, chunk_size: int, seed: int) -> None:
            data = data_of(size, seed)
            async with it.writer() as writer:
                content = await image(it, writer, data, chunk_size, seed)
            cut = [data[at : at + chunk_size] for at in range(0, size, chunk_size)]
            assert content == [digest(chunk) for chunk in cut]
            assert await staged(it, content, tmp_path / "image") == data

        @EXAMPLES
        @given(sizes, st.sampled_from(CHUNK_SIZES), st.integers(0, 99))
        @example(3 * SLOT_SIZE, 4 << 10, 1)
        @example(2 * SLOT_SIZE + 512, 64 << 10, 2)
        def holds(size: int, chunk_size: int, seed: int) -> None:
            from_thread.run(round_trip, size, chunk_size, seed)

        await to_thread.run_sync(holds)


@HOW
async def test_a_stream_comes_back_however_it_was_fed(thread_bytes: int, tmp_path: Path) -> None:
    async with bench(thread_bytes) as it:

        async def round_trip(size: int, fed: int, seed: int) -> None:
            data = data_of(size, seed)
            async with it.writer() as writer:
                parts = [data[at : at + fed] for at in range(0, size, fed)]
                content = await stream(it, writer, parts)
                whole = [part for _, part in pieces(data)]
                assert await stream(it, writer, whole) == content  # cut by what is in it
            assert await staged(it, content, tmp_path / "stream") == data

        @EXAMPLES
        @given(sizes, st.sampled_from([64 << 10, 1 << 20, SLOT_SIZE]), st.integers(0, 99))
        def holds(size: int, fed: int, seed: int) -> None:
            from_thread.run(round_trip, size, fed, seed)

        await to_thread.run_sync(holds)


async def test_a_changed_page_of_an_image_is_one_new_chunk(tmp_path: Path) -> None:
    data = data_of(SLOT_SIZE + 40_000, 7)
    changed = data[:100_000] + b"changed" + data[100_007:]
    async with bench() as it:
        async with it.writer() as writer:
            before = await image(it, writer, data, 16 << 10, 0)
        async with it.writer() as writer:
            after = await image(it, writer, changed, 16 << 10, 0)
            assert writer.totals.blobs == 1
        assert [
            n for n, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]
        ] == [6]
        assert await staged(it, after, tmp_path / "image") == changed


async def test_an_insertion_into_a_stream_is_a_few_new_chunks() -> None:
    data = Random(1).randbytes(SLOT_SIZE)  # noqa: S311
    async with bench() as it:
        async with it.writer() as writer:
            before = await stream(it, writer, [data])
        async with it.writer() as writer:
            after = await stream(it, writer, [data[:1_000_000] + b"inserted", data[1_000_000:]])
        assert len(set(after) - set(before)) <= 2
        assert len(before) > 20


async def test_an_empty_file_has_no_blobs() -> None:
    async with bench() as it, it.writer() as writer:
        assert ImageContent(writer, 16 << 10).finish() == ()
        assert await StreamContent(writer, it.pool).finish() == ()
        assert writer.totals.blobs == 0


async def test_a_small_file_needs_no_slot() -> None:
    """Settings files are saved while a capture holds all slots but the reserved ones."""
    async with bench() as it:
        async with it.writer() as writer:
            taken = [await it.pool.slots.take() for _ in range(it.pool.arena.slots)]
            content = StreamContent(writer, it.pool)
            it.pool.arena.content(taken[0])[:5] = b"a = 1"
            await content.save(taken[0], 5)
            with anyio.fail_after(1):
                blobs = await content.finish()
        assert await it.repository.load_blob(BlobKind.DATA, blobs[0]) == b"a = 1"
