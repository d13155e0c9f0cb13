"""What a local file has is taken from there, proven; the rest comes from the repository."""

import os
import threading
from pathlib import Path

import pytest

from mcp_backup.errors import ObjectMissing
from mcp_backup.repository.reader import Goal, fill_file
from tests.repository.pooling import THREAD, bench, noise
from tests.repository.test_reader import CHUNK, Saved, save


async def _staged(tmp_path: Path, local: bytes | None, *, damaged: bool = False) -> bytes:
    """Save a file, and stage it beside a local one; with the pack gone, for the sake of proof."""
    data = noise(32 * CHUNK + 100)
    (tmp_path / "local").write_bytes(data if local is None else local)
    async with bench(THREAD) as it:
        saved: Saved = await save(it, tmp_path, data)
        if damaged:
            for name in await it.repository.store.objects("data/"):
                await it.repository.store.delete(name)
        goal = Goal(saved.path, local=tmp_path / "local")
        size = await fill_file(it.repository, it.pool, saved.content, goal)
        assert size == len(data)
        assert saved.path.read_bytes() == data
    return data


async def test_a_file_that_is_here_needs_nothing_from_the_store(tmp_path: Path) -> None:
    await _staged(tmp_path, None, damaged=True)


@pytest.mark.parametrize(
    "local",
    [
        b"",
        bytes(32 * CHUNK),
        noise(32 * CHUNK + 100)[: 25 * CHUNK + 7],
        noise(32 * CHUNK + 100)[: 20 * CHUNK]
        + bytes(3)
        + noise(32 * CHUNK + 100)[20 * CHUNK + 3 :],
        noise(32 * CHUNK + 100) + bytes(CHUNK),
        bytes(CHUNK) + noise(32 * CHUNK + 100)[CHUNK:],
    ],
    ids=["empty", "other", "cut off", "changed", "longer", "changed at its start"],
)
async def test_whatever_the_local_file_holds_the_bytes_are_those_of_the_backup(
    tmp_path: Path, local: bytes
) -> None:
    await _staged(tmp_path, local)


async def test_what_the_local_file_lacks_is_fetched_and_nothing_else_will_do(
    tmp_path: Path,
) -> None:
    data = noise(32 * CHUNK + 100)
    changed = data[: 9 * CHUNK] + b"x" + data[9 * CHUNK + 1 :]
    with pytest.raises(ObjectMissing):
        await _staged(tmp_path, changed, damaged=True)


async def test_a_local_file_that_is_no_file_is_passed_over(tmp_path: Path) -> None:
    data = noise(8 * CHUNK)
    os.mkfifo(tmp_path / "fifo")
    async with bench(THREAD) as it:
        saved = await save(it, tmp_path, data)
        for local in (tmp_path / "fifo", tmp_path / "none", tmp_path):
            saved.path.write_bytes(b"")
            await fill_file(it.repository, it.pool, saved.content, Goal(saved.path, local=local))
            assert saved.path.read_bytes() == data


async def test_a_local_file_may_be_written_to_meanwhile(tmp_path: Path) -> None:
    data = noise(32 * CHUNK)
    local, done = tmp_path / "local", threading.Event()
    local.write_bytes(data)

    def scribble() -> None:
        with local.open("r+b", buffering=0) as file:
            number = 0
            while not done.is_set():
                at = number % 32 * CHUNK
                os.pwrite(file.fileno(), os.urandom(CHUNK), at)
                os.pwrite(file.fileno(), data[at : at + CHUNK], at)
                number += 1

    async with bench(THREAD) as it:
        saved = await save(it, tmp_path, data)
        thread = threading.Thread(target=scribble)
        thread.start()
        try:
            for _ in range(10):
                await fill_file(
                    it.repository, it.pool, saved.content, Goal(saved.path, local=local)
                )
                assert saved.path.read_bytes() == data
        finally:
            done.set()
            thread.join()
