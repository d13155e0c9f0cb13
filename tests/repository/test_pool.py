"""The crew for slots: the same answers from a thread and from processes; slots are safe."""

import gc
import os
import signal
import weakref
from array import array
from pathlib import Path

import anyio
import pytest
from anyio import lowlevel

from mcp_backup.arena import SLACK, SLOT_SIZE
from mcp_backup.errors import IntegrityError, StoreFull, WorkerDied
from mcp_backup.format.chunking import laid
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import digest
from mcp_backup.repository.pool import SEALING
from mcp_backup.repository.repository import unseal_blob
from mcp_backup.repository.sealing import PIECE
from tests.processes import workers
from tests.repository.pooling import (
    PROCESSES,
    SPAWNED,
    THREAD,
    Bench,
    bench,
    noise,
    split,
    words,
)

HOW = pytest.mark.parametrize(
    "thread_bytes", [THREAD, PROCESSES, SPAWNED], ids=["thread", "forked", "spawned"]
)
CHUNK = 16 << 10


def fill(bench: Bench, slot: int, data: bytes) -> list[int]:
    """Put data into a slot; return the lengths of its chunks."""
    bench.pool.arena.content(slot)[: len(data)] = data
    return [len(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]


def paint(bench: Bench, slot: int, colour: int) -> None:
    """Overwrite the whole slot with one byte."""
    bench.pool.arena.sealed(slot)[:] = bytes([colour]) * (SLACK + SLOT_SIZE)


def colours(bench: Bench, slot: int) -> set[int]:
    """The bytes that are in the slot."""
    return set(bytes(bench.pool.arena.sealed(slot)))


def runs(lengths: list[int]) -> list[int]:
    """(start, length, start, length, …) of chunks that lie end to end."""
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    return [number for pair in zip(starts, lengths, strict=True) for number in pair]


def pieces(sizes: list[tuple[int, int]], ids: list[bytes]) -> bytes:
    """What to unseal: blobs end to end, their plaintexts too."""
    found, offset, position = b"", 0, 0
    for (length, plain_length), identity in zip(sizes, ids, strict=True):
        found += PIECE.pack(offset, length, plain_length, position, identity)
        offset, position = offset + length, position + (plain_length or length - 32)
    return found


@HOW
async def test_what_is_sealed_in_place_unseals_to_what_was_there(
    thread_bytes: int, tmp_path: Path
) -> None:
    (tmp_path / "out").touch()
    data = words(SLOT_SIZE // 2, 1) + noise(SLOT_SIZE // 2 - 5, 1)
    async with bench(thread_bytes) as it:
        slot = await it.pool.slots.take()
        lengths = fill(it, slot, data)
        ids = split(await it.pool.hash(slot, laid(lengths)))
        assert ids == [digest(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
        numbers = list(await it.pool.seal(slot, runs(lengths)))
        sizes = list(zip(numbers[::2], numbers[1::2], strict=True))
        sealer, sealed, at = Sealer(it.repository.key), bytes(it.pool.arena.sealed(slot)), 0
        for identity, (length, plain_length) in zip(ids, sizes, strict=True):
            unseal_blob(sealer, identity, sealed[at : at + length], plain_length)
            at += length
        async with it.pool.file(tmp_path / "out") as file:
            await it.pool.unseal(slot, pieces(sizes, [bytes(identity) for identity in ids]), file)
        assert (tmp_path / "out").read_bytes() == data
        assert bool(workers(SEALING)) == (thread_bytes != THREAD)
    assert workers(SEALING) == []


async def test_it_is_bytes_and_not_requests_that_start_processes() -> None:
    async with bench(2 * SLOT_SIZE) as it:
        slot = await it.pool.slots.take()
        lengths = fill(it, slot, noise(SLOT_SIZE // 2, 3))
        for _ in range(16):  # hashing counts as a quarter: 16 times half a mebibyte
            await it.pool.hash(slot, laid(lengths))
        assert workers(SEALING) == []
        await it.pool.hash(slot, laid(lengths))
        assert workers(SEALING)


@HOW
async def test_the_finest_chunks_of_noise_are_sealed_in_place_without_touching_the_next_slot(
    thread_bytes: int,
) -> None:
    async with bench(thread_bytes) as it:
        slots = [await it.pool.slots.take() for _ in range(3)]
        data = noise(SLOT_SIZE, 2)
        for slot in slots:
            paint(it, slot, 0xEE)
        it.pool.arena.content(slots[1])[:] = data
        lengths = [4096] * (SLOT_SIZE // 4096)
        ids = split(await it.pool.hash(slots[1], laid(lengths)))
        numbers = await it.pool.seal(slots[1], runs(lengths))
        assert set(numbers[1::2]) == {0}  # noise is not compressed
        assert sum(numbers[::2]) == SLOT_SIZE + 32 * len(lengths)
        sealer, sealed = Sealer(it.repository.key), bytes(it.pool.arena.sealed(slots[1]))
        for n, identity in enumerate(ids):
            plain = unseal_blob(sealer, identity, sealed[n * 4128 : n * 4128 + 4128], 0)
            assert plain == data[n * 4096 : n * 4096 + 4096]
        for slot in (slots[0], slots[2]):
            assert colours(it, slot) == {0xEE}


@HOW
async def test_a_cancelled_request_is_done_with_its_slot_when_it_returns(
    thread_bytes: int,
) -> None:
    """Else the next source's bytes would be sealed over while they are read."""
    async with bench(thread_bytes) as it:
        slot = await it.pool.slots.take()
        for steps in range(1, 9):
            lengths = fill(it, slot, noise(SLOT_SIZE, 3))
            await it.pool.hash(slot, laid(lengths))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(it.pool.seal, slot, runs(lengths))
                for _ in range(steps):
                    await lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            paint(it, slot, 0xAA)
            for _ in range(2 * 4):
                await it.pool.hash(slot, laid(lengths))  # whatever was on its way is through now
            assert colours(it, slot) == {0xAA}


async def test_a_cancel_from_outside_ends_pool_and_processes_at_once() -> None:
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with bench(PROCESSES) as it:
            slots = [await it.pool.slots.take() for _ in range(it.pool.arena.slots)]
            await it.pool.hash(slots[0], [0, CHUNK])
            async with anyio.create_task_group() as tasks:
                for slot in slots:
                    tasks.start_soon(it.pool.seal, slot, runs(fill(it, slot, noise(SLOT_SIZE))))
                await lowlevel.checkpoint()
                scope.cancel()
    assert scope.cancelled_caught
    assert workers(SEALING) == []


async def test_processes_start_for_much_work_and_never_for_a_little_however_often() -> None:
    async with bench(1) as it:
        slot = await it.pool.slots.take()
        lengths = fill(it, slot, words(SLOT_SIZE, 5))
        little = runs(lengths[:4])
        for _ in range(5):
            await it.pool.hash(slot, little)
            await it.pool.seal(slot, little)
        assert workers(SEALING) == []
        for _ in range(2):
            await it.pool.hash(slot, runs(lengths))
        assert workers(SEALING)


async def test_a_killed_worker_is_told_by_name_and_nobody_waits_for_it() -> None:
    async with bench(PROCESSES) as it:
        slot = await it.pool.slots.take()
        lengths = fill(it, slot, noise(SLOT_SIZE, 4))
        await it.pool.hash(slot, laid(lengths))
        for pid in workers(SEALING):
            os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(5):
            for _ in range(3):
                with pytest.raises(WorkerDied, match="hashing and sealing was killed by signal 9"):
                    await it.pool.hash(slot, laid(lengths))


@HOW
async def test_a_blob_that_is_not_what_its_id_says_is_an_integrity_error(
    thread_bytes: int,
) -> None:
    async with bench(thread_bytes) as it:
        slot = await it.pool.slots.take()
        lengths = fill(it, slot, b"x" * 100)
        sizes = list(await it.pool.seal(slot, runs(lengths)))
        wrong = digest(b"something else")
        with pytest.raises(IntegrityError, match=rf"blob {wrong.hex()[:16]}…: its bytes do not"):
            await it.pool.unseal(slot, pieces([(sizes[0], sizes[1])], [wrong]))
        it.pool.arena.sealed(slot)[20] ^= 1
        with pytest.raises(IntegrityError):
            await it.pool.unseal(slot, pieces([(sizes[0], sizes[1])], [digest(b"x" * 100)]))


@HOW
async def test_a_file_without_room_is_named(thread_bytes: int) -> None:
    async with bench(thread_bytes) as it:
        slot = await it.pool.slots.take()
        lengths = fill(it, slot, b"x" * 100)
        sizes = list(await it.pool.seal(slot, runs(lengths)))
        piece = pieces([(sizes[0], sizes[1])], [digest(b"x" * 100)])
        async with it.pool.file(Path("/dev/full")) as file:
            with pytest.raises(StoreFull, match="writing /dev/full: No space left"):
                await it.pool.unseal(slot, piece, file)


async def test_waiting_for_a_slot_is_what_bounds_memory() -> None:
    async with bench() as it:
        taken = [await it.pool.slots.take() for _ in range(it.pool.arena.slots)]
        assert sorted(taken) == list(range(it.pool.arena.slots))
        with anyio.move_on_after(0.01) as scope:
            await it.pool.slots.take()
        assert scope.cancelled_caught
        it.pool.slots.give_back(taken[3])
        assert await it.pool.slots.take() == taken[3]


async def test_one_worker_gets_no_more_than_its_share() -> None:
    """Requests go to whoever has the fewest; so a slow one delays nothing but its own."""
    async with bench(PROCESSES) as it:
        slots = [await it.pool.slots.take() for _ in range(4)]
        lengths = [fill(it, slot, noise(SLOT_SIZE, slot)) for slot in slots]
        async with anyio.create_task_group() as tasks:
            for slot, chunks in zip(slots, lengths, strict=True):
                tasks.start_soon(it.pool.seal, slot, runs(chunks))
        assert len(workers(SEALING)) == min(len(os.sched_getaffinity(0)), 4)


def test_numbers_travel_as_32_bits() -> None:
    assert array("I").itemsize == 4


@pytest.mark.parametrize("pause", [0, 0.02, 0.1])
async def test_a_pool_ends_while_its_processes_are_still_starting(pause: float) -> None:
    with anyio.fail_after(30):
        async with bench(THREAD) as it:
            it.pool.begin()
            await anyio.sleep(pause)
            it.pool.begin()  # as whoever needs them says again


async def test_a_pool_that_is_done_with_keeps_no_compressor_for_the_garbage_collector() -> None:
    """What refers to it in a circle, as tasks and tracebacks do, may stay: it is small."""
    gc.collect()
    gc.disable()
    try:
        async with bench() as made:
            circle: list[object] = [made.pool]
            circle.append(circle)
            contexts = weakref.ref(made.pool._local)
        del made, circle
        assert contexts() is None
    finally:
        gc.enable()
