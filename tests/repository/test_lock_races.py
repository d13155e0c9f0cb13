"""Where a listing has everything, nobody waits, and two still never have a repository alone."""

import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_backup.repository.locks import LockTimes, locked
from mcp_backup.store.local import LocalStore
from mcp_backup.store.memory import MemoryStore
from mcp_backup.store.retry import RetryingStore
from tests.repository.packing import new_repository

PATIENT = LockTimes(settle=timedelta(hours=1))
ATTEMPTS = 40


class ShareLikeStore(MemoryStore):
    """Lists what was put when it likes."""

    async def is_prompt(self) -> bool:
        return False


async def test_on_a_prompt_store_a_lock_waits_for_nobody() -> None:
    repository = await new_repository(RetryingStore(MemoryStore()))
    with anyio.fail_after(30):
        async with locked(repository, times=PATIENT):
            pass


async def test_on_any_other_store_it_waits() -> None:
    repository = await new_repository(ShareLikeStore())
    with anyio.move_on_after(0.3):
        async with locked(repository, times=PATIENT):
            pytest.fail("entered")


async def test_of_processes_that_want_to_be_alone_never_two_are(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    await store.create_layout()
    await new_repository(store)
    if not await store.is_prompt():
        pytest.skip(f"{tmp_path} is on no disk of this machine's own")
    command = [sys.executable, "-m", "tests.repository.lock_racer"]
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(tmp_path / "r"), str(ATTEMPTS)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(3)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told = [line for racer in racers for line in racer.communicate(timeout=60)[0].split()]
    assert len(told) == len(racers) * ATTEMPTS
    assert told.count("together") == 0
    assert told.count("refused")  # or they never met
    assert told.count("alone")
