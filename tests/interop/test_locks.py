"""restic honours our locks, and we honour restic's."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from mcp_backup.errors import RepositoryLocked
from mcp_backup.format.ids import is_id
from mcp_backup.place import utc_now
from mcp_backup.repository.locks import locked
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.location import create_store, open_store
from tests.interop.conftest import Restic
from tests.repository.packing import PASSWORD, new_repository


@asynccontextmanager
async def ours(restic: Restic) -> AsyncIterator[Repository]:
    """Our view of the repository, from this host and this time, as restic will see it."""
    if not (restic.location / "config").exists():
        await new_repository(await create_store(str(restic.location)))
    yield await open_repository(
        open_store(str(restic.location)),
        PASSWORD,
        now=utc_now,
        hostname=socket.gethostname(),
        username="tester",
    )


def lock_files(restic: Restic) -> set[str]:
    return {name for name in os.listdir(restic.location / "locks") if is_id(name)}


@contextmanager
def held(restic: Restic, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A restic that waits for its standard input with a lock in its hand."""
    before = lock_files(restic)
    with restic.start(*command) as process:
        try:
            deadline = time.monotonic() + 30
            while lock_files(restic) <= before:
                assert time.monotonic() < deadline, "restic took no lock"
                assert process.poll() is None, "restic ended at once"
                time.sleep(0.01)  # another program's progress can only be looked for
            yield process
        finally:
            process.kill()


SHARING = ("backup", "--stdin")
ALONE = ("key", "passwd")


async def test_restic_check_fails_while_we_hold_a_lock_and_not_after(restic: Restic) -> None:
    async with ours(restic) as repository:
        async with locked(repository):
            complaint = restic.refuses("check")
            assert "lock" in complaint
            assert f"PID {os.getpid()} on {socket.gethostname()} by tester" in complaint
        assert "no errors were found" in restic("check")


async def test_restic_shares_with_our_shared_lock_and_not_with_our_exclusive_one(
    restic: Restic,
) -> None:
    async with ours(restic) as repository:
        async with locked(repository):
            assert restic.json("snapshots") == []
        async with locked(repository, exclusive=True):
            assert "already locked exclusively" in restic.refuses("snapshots")
            assert len(restic("list", "locks", "--no-lock").split()) == 1


async def test_we_share_with_a_restic_that_backs_up(restic: Restic) -> None:
    async with ours(restic) as repository:
        with held(restic, *SHARING) as process:
            async with locked(repository):
                pass
            with pytest.raises(RepositoryLocked, match=f"process {process.pid}"):
                async with locked(repository, exclusive=True):
                    pass


async def test_we_refuse_while_restic_has_it_alone(restic: Restic) -> None:
    async with ours(restic) as repository:
        with held(restic, *ALONE) as process:
            with pytest.raises(RepositoryLocked, match="locked exclusively by") as refused:
                async with locked(repository):
                    pass
            assert f"{socket.gethostname()} (process {process.pid})" in str(refused.value)


@pytest.mark.parametrize("command", [SHARING, ALONE])
async def test_the_lock_of_a_killed_restic_is_cleared(
    restic: Restic, command: tuple[str, ...]
) -> None:
    async with ours(restic) as repository:
        with held(restic, *command):
            pass
        assert len(await repository.store.objects("locks/")) == 1
        async with locked(repository, exclusive=True):
            assert len(await repository.store.objects("locks/")) == 1
        assert "no errors were found" in restic("check")


async def test_restic_unlock_probes_us_and_neither_kills_us_nor_takes_our_lock(
    restic: Restic,
) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: received.append(number))
    try:
        async with ours(restic) as repository, locked(repository):
            restic("unlock")
            assert received == []
            assert len(await repository.store.objects("locks/")) == 1
    finally:
        signal.signal(signal.SIGHUP, before)
