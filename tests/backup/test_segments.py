"""Segments of the last backup make the next one faster, and nothing else."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import anyio
import pytest
from anyio import from_thread, to_thread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.backup.segments import SegmentCache, Segments
from mcp_backup.format.ids import digest
from mcp_backup.repository.writer import Writer
from mcp_backup.sources.digest import SEGMENT
from mcp_backup.verbs import BackupType, CreateRequest
from tests.backup.test_contents import CHUNK_SIZES, data_of, image, imaged, staged
from tests.repository.pooling import Bench, bench
from tests.system import System, make_system

CHUNK = 16 << 10
PLACE = "databases/notes/notes.db"


async def hashed_bytes(it: Bench, writer: Writer, data: bytes, before: Segments) -> int:
    """Save an image and return how many of its bytes were hashed."""
    asked = 0
    hash_chunks = it.pool.hash

    async def hash_and_count(slot: int, chunks: list[int]) -> bytes:
        nonlocal asked
        asked += sum(chunks[1::2])
        return await hash_chunks(slot, chunks)

    it.pool.hash = hash_and_count  # type: ignore[method-assign, assignment]
    await imaged(it, writer, data, before, 0)
    it.pool.hash = hash_chunks  # type: ignore[method-assign]
    return asked


async def test_an_edited_image_has_the_same_chunks_as_without_the_segments(tmp_path: Path) -> None:
    async with bench() as it:

        async def round_trip(old: int, new: int, edits: list[int], chunk_size: int) -> None:
            was = data_of(old, 1)
            async with it.writer() as writer:
                _, before = await imaged(it, writer, was, Segments(chunk_size), 0)
            now = bytearray((was + data_of(max(new - old, 0), 2))[:new])
            for at in edits:
                now[at % max(new, 1) : at % max(new, 1) + 3] = b"new"[: max(new, 3)]
            data = bytes(now)
            async with it.writer() as writer:
                content, after = await imaged(it, writer, data, before, 1)
                assert (content, after) == await imaged(it, writer, data, Segments(chunk_size), 2)
            chunks = [data[at : at + chunk_size] for at in range(0, len(data), chunk_size)]
            assert content == [digest(chunk) for chunk in chunks]
            assert await staged(it, content, tmp_path / "image") == data

        sizes = st.builds(  # whole segments and a rest, in one slot or in two
            lambda whole, rest: whole * SEGMENT + rest,
            st.integers(0, SLOT_SIZE // SEGMENT + 2),
            st.sampled_from([0, 1, CHUNK, CHUNK + 1, SEGMENT - 1]),
        )

        @settings(
            max_examples=25,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
            deadline=None,
        )
        @given(
            sizes,
            sizes,
            st.lists(st.integers(0, 1 << 30), max_size=4),
            st.sampled_from(CHUNK_SIZES),
        )
        def holds(old: int, new: int, edits: list[int], chunk_size: int) -> None:
            from_thread.run(round_trip, old, new, edits, chunk_size)

        await to_thread.run_sync(holds)


@pytest.mark.parametrize("rest", [1, CHUNK, CHUNK + 1, SEGMENT - 1])
async def test_a_last_segment_that_is_no_whole_one_and_changed_has_no_chunks_too_many(
    tmp_path: Path, rest: int
) -> None:
    was = data_of(2 * SEGMENT + rest, 1)
    now = was[:-1] + bytes([was[-1] ^ 1])
    async with bench() as it:
        async with it.writer() as writer:
            _, before = await imaged(it, writer, was, Segments(CHUNK), 0)
        async with it.writer() as writer:
            content, _ = await imaged(it, writer, now, before, 1)
        assert content == [digest(now[at : at + CHUNK]) for at in range(0, len(now), CHUNK)]
        assert await staged(it, content, tmp_path / "image") == now


async def test_only_segments_that_changed_are_hashed() -> None:
    data = data_of(2 * SLOT_SIZE + 100_000, 3)
    changed = data[: 5 * SEGMENT] + b"x" + data[5 * SEGMENT + 1 :]
    async with bench() as it:
        async with it.writer() as writer:
            _, before = await imaged(it, writer, data, Segments(CHUNK), 0)
        async with it.writer() as writer:
            assert await hashed_bytes(it, writer, data, before) == 0
            assert await hashed_bytes(it, writer, changed, before) == SEGMENT
            assert await hashed_bytes(it, writer, data, Segments(CHUNK)) == len(data)


async def test_what_the_repository_does_not_have_is_stored_whatever_is_known(
    tmp_path: Path,
) -> None:
    """The repository was replaced, or pruned, or restored from an older copy of itself."""
    data = data_of(SLOT_SIZE, 4)
    async with bench() as elsewhere, elsewhere.writer() as writer:
        _, before = await imaged(elsewhere, writer, data, Segments(CHUNK), 0)
    async with bench() as it:
        async with it.writer() as writer:
            await image(it, writer, data[: 3 * SEGMENT], CHUNK, 0)  # it has a part of them
        async with it.writer() as writer:
            content, _ = await imaged(it, writer, data, before, 0)
        assert await staged(it, content, tmp_path / "image") == data


async def test_what_was_saved_is_loaded_and_belongs_to_one_repository_and_chunk_size(
    tmp_path: Path,
) -> None:
    random = Random(1)  # noqa: S311
    known = Segments(CHUNK, random.randbytes(2 * 32), random.randbytes(5 * 32))
    async with bench() as it, bench() as another:
        cache = SegmentCache(tmp_path / "s", it.repository)
        assert await cache.load(PLACE, CHUNK) == Segments(CHUNK)
        await cache.save(PLACE, known)
        assert await cache.load(PLACE, CHUNK) == known
        assert await cache.load(PLACE + "2", CHUNK) == Segments(CHUNK)
        assert await cache.load(PLACE, 2 * CHUNK) == Segments(2 * CHUNK)
        whole = SegmentCache(tmp_path / "s", it.repository, whole=True)
        assert await whole.load(PLACE, CHUNK) == Segments(CHUNK)
        other = SegmentCache(tmp_path / "s", another.repository)
        assert await other.load(PLACE, CHUNK) == Segments(CHUNK)


async def test_a_spoiled_file_is_none(tmp_path: Path) -> None:
    async with bench() as it:
        cache = SegmentCache(tmp_path, it.repository)
        await cache.save(PLACE, Segments(CHUNK, bytes(32), bytes(4 * 32)))
        (file,) = tmp_path.iterdir()
        good = file.read_bytes()
        for at in (0, 31, 32, 36, 40, len(good) - 1):
            file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert await cache.load(PLACE, CHUNK) == Segments(CHUNK)
        for size in (0, 5, 32, 39, len(good) - 1):
            file.write_bytes(good[:size])
            assert await cache.load(PLACE, CHUNK) == Segments(CHUNK)


def _deleted(directory: Path, other: bytes) -> None:
    for file in directory.iterdir():
        file.unlink()


def _of_another_repository(directory: Path, other: bytes) -> None:
    for file in directory.iterdir():
        file.write_bytes(other)


def _cut(directory: Path, other: bytes) -> None:
    for file in directory.iterdir():
        file.write_bytes(file.read_bytes()[:-1])


def _swapped(directory: Path, other: bytes) -> None:
    one, two = sorted(directory.iterdir())
    one.write_bytes(two.read_bytes())


def _in_the_way(directory: Path, other: bytes) -> None:
    for file in list(directory.iterdir()):
        file.unlink()
        file.mkdir()


def _left_alone(directory: Path, other: bytes) -> None:
    assert sorted(directory.iterdir())


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of another repository with the same databases in it."""

    async def made() -> bytes:
        system = await make_system(tmp_path_factory.mktemp("foreign"), rows=2000)
        async with system.engine() as engine:
            await engine.create(CreateRequest(BackupType.DATABASE, verify=False))
            return next((engine.state / "segments").iterdir()).read_bytes()

    return anyio.run(made)


@pytest.mark.parametrize(
    "spoil", [_left_alone, _deleted, _of_another_repository, _cut, _swapped, _in_the_way]
)
async def test_whatever_happens_to_the_files_backups_are_right(
    spoil: Callable[[Path, bytes], None], foreign: bytes, tmp_path: Path
) -> None:
    system = await make_system(tmp_path / "system", rows=2000)
    async with system.engine() as engine:
        await engine.create(CreateRequest(BackupType.DATABASE, verify=False))
        directory = engine.state / "segments"
        assert len(list(directory.iterdir())) == 2
        spoil(directory, foreign)
        _edit(system)
        report = await engine.create(CreateRequest(BackupType.INCREMENTAL))
    assert (report.status, report.verification) == ("completed", "passed")  # all was read back


def _edit(system: System) -> None:
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("UPDATE notes SET body = 'edited' WHERE id % 700 = 0")
