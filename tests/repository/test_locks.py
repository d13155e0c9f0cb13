"""Locks keep others out, never outlive their process for long, and end work that lost them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

import anyio
import pytest

from mcp_backup.errors import (
    IntegrityError,
    RepositoryLocked,
    SourceMissing,
    StoreDenied,
    StoreUnavailable,
)
from mcp_backup.format.lock import Lock, decode_lock, encode_lock
from mcp_backup.repository.locks import LockTimes, locked
from mcp_backup.repository.repository import Repository
from mcp_backup.store.memory import MemoryStore
from mcp_backup.store.store import Store
from tests.doubles import FOREVER, Fault, FaultyStore, FrozenClock, How, denied
from tests.repository.packing import new_repository

MILLISECOND = timedelta(milliseconds=1)
QUICK = LockTimes(
    settle=MILLISECOND, watch=MILLISECOND, retry=MILLISECOND, unreadable=(MILLISECOND,) * 3
)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def repository(clock: FrozenClock) -> Repository:
    return await new_repository(MemoryStore(), clock)


async def locks(repository: Repository) -> list[Lock]:
    return [
        decode_lock(await repository.load_unpacked("locks", bytes.fromhex(name[6:])))
        for name in await repository.store.objects("locks/")
    ]


async def foreign(repository: Repository, **facts: object) -> Lock:
    """Leave another process's lock in the repository."""
    members: dict[str, object] = {
        "time": repository.now(),
        "exclusive": False,
        "hostname": "elsewhere",
        "username": "ann",
        "pid": 4711,
    }
    lock = Lock(**(members | facts))  # type: ignore[arg-type]
    await repository.save_unpacked("locks", encode_lock(lock))
    return lock


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_a_lock_is_there_during_the_block_and_gone_after(
    repository: Repository, clock: FrozenClock
) -> None:
    async with locked(repository, times=QUICK):
        (lock,) = await locks(repository)
        assert lock == Lock(
            time=clock(),
            exclusive=False,
            hostname="here",
            username="tester",
            pid=os.getpid(),
            uid=os.getuid(),
            gid=os.getgid(),
        )
        assert not repository.exclusive
    assert await locks(repository) == []


async def test_many_may_share_a_repository(repository: Repository) -> None:
    await foreign(repository)
    async with locked(repository, times=QUICK), locked(repository, times=QUICK):
        assert len(await locks(repository)) == 3
    assert len(await locks(repository)) == 1


@pytest.mark.parametrize(("theirs", "ours"), [(True, False), (False, True), (True, True)])
async def test_an_exclusive_lock_shares_with_nobody(
    repository: Repository, theirs: bool, ours: bool
) -> None:
    lock = await foreign(repository, exclusive=theirs)
    with pytest.raises(RepositoryLocked):
        async with locked(repository, exclusive=ours, times=QUICK):
            pytest.fail("entered")
    assert await locks(repository) == [lock]


async def test_a_refusal_names_who_where_since_when_and_what_to_do(
    repository: Repository, clock: FrozenClock
) -> None:
    await foreign(repository, exclusive=True)
    clock.advance(timedelta(minutes=3))
    with pytest.raises(RepositoryLocked) as refused:
        async with locked(repository, times=QUICK):
            pass
    assert str(refused.value) == (
        "memory is locked exclusively by ann@elsewhere (process 4711), last heard of 3 minutes ago"
    )
    assert "Wait until that process has finished" in refused.value.hint


async def test_our_own_lock_is_respected_too(repository: Repository) -> None:
    async with locked(repository, exclusive=True, times=QUICK):
        assert repository.exclusive
        with pytest.raises(RepositoryLocked):
            async with locked(repository, times=QUICK):
                pass
        assert repository.exclusive
    assert not repository.exclusive


async def test_a_lock_that_turns_up_while_ours_settles_wins(repository: Repository) -> None:
    store = repository.store

    class Racing(FaultyStore):
        async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
            await super().put(name, data)
            if self.calls.count(("put", name)) == 1:
                repository.store = store
                await foreign(repository, exclusive=True)

    repository.store = Racing(store)
    with pytest.raises(RepositoryLocked):
        async with locked(repository, times=QUICK):
            pytest.fail("entered")
    (left,) = await locks(repository)
    assert left.pid == 4711


async def test_waiting_ends_when_the_other_has_finished(repository: Repository) -> None:
    async with anyio.create_task_group() as tasks:
        holding, waiting = anyio.Event(), anyio.Event()

        async def hold() -> None:
            async with locked(repository, exclusive=True, times=QUICK):
                holding.set()
                await waiting.wait()

        tasks.start_soon(hold)
        await holding.wait()
        with pytest.raises(RepositoryLocked):
            async with locked(repository, wait=0.01, times=QUICK):
                pass
        waiting.set()
        async with locked(repository, wait=30, times=QUICK):
            assert len(await locks(repository)) == 1


async def test_two_who_want_it_alone_both_get_it_in_the_end(repository: Repository) -> None:
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with locked(repository, exclusive=True, wait=30, times=QUICK):
            inside += 1
            await anyio.sleep(0.005)
            assert inside == 1
            inside -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(work)
    assert await locks(repository) == []


@pytest.mark.parametrize("exclusive", [True, False])
async def test_the_lock_of_a_process_that_ended_is_cleared(
    repository: Repository, exclusive: bool
) -> None:
    await foreign(repository, hostname="here", pid=dead_pid(), exclusive=exclusive)
    async with locked(repository, exclusive=True, times=QUICK):
        (lock,) = await locks(repository)
        assert lock.pid == os.getpid()


async def test_the_lock_of_a_process_that_lives_is_not(repository: Repository) -> None:
    lock = await foreign(repository, hostname="here", pid=os.getppid(), exclusive=True)
    with pytest.raises(RepositoryLocked):
        async with locked(repository, times=QUICK):
            pass
    assert await locks(repository) == [lock]


async def test_a_dead_pid_means_nothing_on_another_host(repository: Repository) -> None:
    await foreign(repository, pid=dead_pid(), exclusive=True)
    with pytest.raises(RepositoryLocked):
        async with locked(repository, times=QUICK):
            pass


async def test_a_predecessor_with_our_own_pid_is_known_to_be_dead(repository: Repository) -> None:
    await foreign(repository, hostname="here", pid=os.getpid(), exclusive=True)
    async with locked(repository, times=QUICK):
        assert len(await locks(repository)) == 1


async def test_a_lock_not_refreshed_for_half_an_hour_is_cleared(
    repository: Repository, clock: FrozenClock
) -> None:
    old = await foreign(repository, exclusive=True)
    clock.advance(timedelta(minutes=30))
    with pytest.raises(RepositoryLocked):
        async with locked(repository, times=QUICK):
            pass
    clock.advance(timedelta(seconds=1))
    async with locked(repository, times=QUICK):
        assert old not in await locks(repository)


class Watched(FaultyStore):
    """Tells when a lock was deleted, and moves the clock with every try to store one."""

    def __init__(self, store: Store, clock: FrozenClock, step: timedelta, *faults: Fault) -> None:
        super().__init__(store, *faults)
        self.deleted = anyio.Event()
        self._clock, self._step = clock, step

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        self._clock.advance(self._step)
        await super().put(name, data)

    async def delete(self, name: str) -> None:
        await super().delete(name)
        self.deleted.set()


@pytest.mark.parametrize("faults", [(), (Fault("put", 1),), (Fault("put", 1, How.AFTER),)])
async def test_a_lock_is_refreshed_and_the_old_one_removed(
    repository: Repository, clock: FrozenClock, faults: tuple[Fault, ...]
) -> None:
    inner = repository.store
    async with locked(repository, times=QUICK):
        for _ in range(3):
            (before,) = await locks(repository)
            repository.store = store = Watched(inner, clock, timedelta(0), *faults)
            clock.advance(timedelta(minutes=5))
            with anyio.fail_after(5):
                await store.deleted.wait()
            assert before not in await locks(repository)
            assert clock() in [lock.time for lock in await locks(repository)]
            if How.AFTER in [fault.how for fault in faults]:
                break  # the lock whose answer was lost stays until the end
    assert await locks(repository) == []


async def test_a_lock_somebody_removed_ends_the_work(
    repository: Repository, clock: FrozenClock
) -> None:
    async def work() -> None:
        async with locked(repository, times=QUICK):
            for name in await repository.store.objects("locks/"):
                await repository.store.delete(name)
            clock.advance(timedelta(minutes=5))
            await anyio.sleep_forever()

    with pytest.raises(RepositoryLocked, match="was removed by somebody"):
        await work()
    assert await locks(repository) == []


async def test_a_lock_that_cannot_be_refreshed_ends_the_work_before_it_is_stale(
    repository: Repository, clock: FrozenClock
) -> None:
    inner, began = repository.store, clock()

    async def work() -> None:
        async with locked(repository, times=QUICK):
            broken = Fault("put", 1, times=FOREVER)
            repository.store = Watched(inner, clock, timedelta(minutes=1), broken)
            clock.advance(timedelta(minutes=5))
            await anyio.sleep_forever()

    with pytest.raises(RepositoryLocked, match="could not be refreshed for 23 minutes"):
        await work()
    assert timedelta(minutes=22.5) <= clock() - began < timedelta(minutes=30)
    assert await inner.objects("locks/") == {}


async def test_an_error_in_the_block_comes_out_as_itself_and_unlocks(
    repository: Repository,
) -> None:
    for error in (SourceMissing("notes", "/nowhere"), ValueError("a bug")):
        with pytest.raises(type(error)) as raised:
            async with locked(repository, times=QUICK):
                raise error
        assert raised.value is error
        assert await locks(repository) == []


class Cancelling(FaultyStore):
    """Cancels a scope during one of its calls."""

    def __init__(self, store: Store, nth: int) -> None:
        super().__init__(store)
        self.scope = anyio.CancelScope()
        self._nth = nth

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        await super().put(name, data)
        self._count()

    async def objects(self, prefix: str) -> Mapping[str, int]:
        found = await super().objects(prefix)
        self._count()
        return found

    def _count(self) -> None:
        if len(self.calls) == self._nth:
            self.scope.cancel()


async def test_a_cancel_at_any_point_leaves_no_lock(clock: FrozenClock) -> None:
    for nth in range(1, 6):
        inner = MemoryStore()
        repository = await new_repository(inner, clock)
        repository.store = store = Cancelling(inner, nth)
        with store.scope:
            async with locked(repository, times=QUICK):
                store.scope.cancel()
                await anyio.sleep_forever()
        assert store.scope.cancelled_caught
        assert await inner.objects("locks/") == {}


async def test_a_failure_at_any_call_leaves_no_lock_that_the_next_run_minds(
    clock: FrozenClock,
) -> None:
    for nth in range(1, 8):
        for how in (How.BEFORE, How.AFTER):
            store = MemoryStore()
            repository = await new_repository(store, clock)
            repository.store = FaultyStore(store, Fault("any", nth, how))
            with suppress(StoreUnavailable):
                async with locked(repository, times=QUICK):
                    pass
            repository.store = store
            async with locked(repository, exclusive=True, times=QUICK):
                assert len(await locks(repository)) == 1


async def test_a_store_that_takes_no_locks_says_so(repository: Repository) -> None:
    repository.store = FaultyStore(repository.store, Fault("put", 1, error=denied()))
    with pytest.raises(StoreDenied):
        async with locked(repository, times=QUICK):
            pytest.fail("entered")


async def test_an_unreadable_lock_is_named_after_some_patience(repository: Repository) -> None:
    name = f"locks/{'ab' * 32}"
    await repository.store.put(name, b"half a lo")
    with pytest.raises(IntegrityError, match=name) as raised:
        async with locked(repository, times=QUICK):
            pass
    assert "restic unlock --remove-all" in raised.value.hint
    assert set(await repository.store.objects("locks/")) == {name}


async def test_a_lock_that_becomes_readable_is_honoured(repository: Repository) -> None:
    lock = await foreign(repository, exclusive=True)
    store = FaultyStore(repository.store, Fault("get", 1, How.TRUNCATE, times=2, under="locks/"))
    repository.store = store
    with pytest.raises(RepositoryLocked):
        async with locked(repository, times=QUICK):
            pass
    assert await locks(repository) == [lock]


async def test_an_empty_lock_file_is_nothing(repository: Repository) -> None:
    await repository.store.put(f"locks/{'ab' * 32}", b"")
    async with locked(repository, exclusive=True, times=QUICK):
        pass


async def test_a_hangup_is_survived_while_locked_and_handled_as_before_after(
    repository: Repository,
) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: received.append(number))
    try:
        async with locked(repository, times=QUICK):
            async with locked(repository, times=QUICK):
                os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
        os.kill(os.getpid(), signal.SIGHUP)
        assert received == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_lock_can_be_held_outside_the_main_thread() -> None:
    held: list[int] = []

    async def hold() -> None:
        repository = await new_repository(MemoryStore())
        async with locked(repository, times=QUICK):
            held.append(len(await locks(repository)))

    thread = threading.Thread(target=anyio.run, args=(hold,))
    thread.start()
    thread.join(30)
    assert held == [1]


async def test_what_is_done_while_a_lock_settles_is_done_before_the_block_and_under_the_lock(
    repository: Repository,
) -> None:
    seen: list[int] = []

    async def meanwhile() -> None:
        seen.append(len(await locks(repository)))

    async with locked(repository, times=QUICK, meanwhile=meanwhile):
        assert seen == [1]


async def test_what_fails_while_a_lock_settles_removes_it(repository: Repository) -> None:
    async def meanwhile() -> None:
        raise IntegrityError("index: not a list")

    with pytest.raises(IntegrityError, match="not a list"):
        async with locked(repository, times=QUICK, meanwhile=meanwhile):
            pytest.fail("the block was entered")
    assert await locks(repository) == []
