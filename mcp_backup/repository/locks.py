"""Locks: restic's, so that we and restic keep out of each other's way.

    list and load all locks; stop on a conflict
    write ours; wait 200 ms where the store is not prompt; list again; on a conflict remove ours
    and stop
    every 5 minutes: write a new one, then remove the old one
    at the end: remove ours

The wait is for locks that were written before ours and are not listed yet. A store that is prompt
has none: everybody writes first and lists then, and of any two who do so, the one whose lock was
there last begins to list when both are there, and sees the other's. That needs nothing of the
other, so restic may wait or not. Nor does a lock slip through while it is refreshed: the new one
is there before the old one goes, so only a listing that began before the one and came to its end
after the other can miss both, and of our two listings the second begins after the first has ended.

A conflict is another lock when either is exclusive. restic never looks past a lock, however old;
so what a killed process left must go, or no `restic check` or `prune` works any more. We remove
a lock, before taking ours, when its process on this host has ended or when it was not refreshed
for 30 minutes, and never any other.

Whoever holds a lock ignores SIGHUP: `restic unlock` sends one to learn whether we are alive.

Source: restic design, "Locks"; restic internal/restic/lock.go.
"""

import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import anyio
from anyio import lowlevel
from msgspec import Struct

from mcp_backup.errors import (
    IntegrityError,
    ObjectMissing,
    RepositoryLocked,
    StoreDenied,
    StoreError,
)
from mcp_backup.format.ids import LockId
from mcp_backup.format.lock import Lock, decode_lock, encode_lock
from mcp_backup.repository.objects import about, identity_in, object_name
from mcp_backup.repository.repository import Repository
from mcp_backup.tasks import task_group

logger = logging.getLogger(__name__)


class LockTimes(Struct, frozen=True):
    """How long everything about locks takes. Restic relies on the first four being as they are.

    `settle` must exceed the time others' locks take to become visible, where that takes any;
    `give_up` lies before `stale` by more than a refresh can take, so that we stop before others
    ignore us.
    """

    settle: timedelta = timedelta(milliseconds=200)
    refresh: timedelta = timedelta(minutes=5)
    give_up: timedelta = timedelta(minutes=22.5)
    stale: timedelta = timedelta(minutes=30)
    watch: timedelta = timedelta(seconds=5)  # between looks at the clock: it jumps after a suspend
    retry: timedelta = timedelta(seconds=1)  # between attempts, when asked to wait for others
    unreadable: tuple[timedelta, ...] = (  # a lock may be on its way into a slow store
        timedelta(seconds=1),
        timedelta(seconds=2),
        timedelta(seconds=4),
    )
    release: timedelta = timedelta(seconds=30)  # a store that hangs may not keep us for longer


RESTIC = LockTimes()
PATIENCE_SECONDS = 60.0  # how long a verb waits for what holds a conflicting lock

_ours: set[LockId] = set()  # locks this process holds, to tell them from a predecessor's


@asynccontextmanager
async def locked(
    repository: Repository,
    *,
    exclusive: bool = False,
    wait: float = 0,
    times: LockTimes = RESTIC,
    meanwhile: Callable[[], Coroutine[Any, Any, object]] = lowlevel.checkpoint,
) -> AsyncIterator[None]:
    """Hold a lock for the duration of the block; with `wait`, try that many seconds to get it.

    After a lock was written, others are looked for again, in case somebody wrote one at the same
    time, and where the store is slow to list them they are waited for. `meanwhile` is done in
    that time. It reads, and relies on nothing that the lock protects.

    When the lock can no longer be refreshed, the block is cancelled and `RepositoryLocked`
    raised: others may then change what the block relies on. A cancel or failure at any point
    removes the lock; a crash leaves one that the next run on this host, or any run after half
    an hour, removes.

    Raises:
        RepositoryLocked: another process has a conflicting lock, or ours was lost.
        IntegrityError: a lock file is unreadable, and stayed so.
    """
    holder = _Holder(repository, times, meanwhile, exclusive=exclusive)
    with _hangups_ignored():
        try:
            await holder.take(wait)
            repository.doubt_index()  # up to now others could prune
            async with task_group() as tasks:
                tasks.start_soon(holder.keep, tasks.cancel_scope)
                with _marked(repository, exclusive=exclusive):
                    yield
                holder.finished = True
                tasks.cancel_scope.cancel()
        finally:
            await holder.release()
        holder.raise_if_lost()


@contextmanager
def _marked(repository: Repository, *, exclusive: bool) -> Iterator[None]:
    if exclusive:
        repository.exclusive = True
    try:
        yield
    finally:
        if exclusive:
            repository.exclusive = False


class _Holder:
    """One lock: taken, kept fresh, released."""

    def __init__(
        self,
        repository: Repository,
        times: LockTimes,
        meanwhile: Callable[[], Coroutine[Any, Any, object]],
        *,
        exclusive: bool,
    ) -> None:
        self.finished = False
        self._meanwhile = meanwhile
        self._repository = repository
        self._times = times
        self._exclusive = exclusive
        self._current: LockId | None = None  # the lock file that is there for sure
        self._written: list[LockId] = []  # those of ours that may be there
        self._time = repository.now()
        self._lost: str = ""

    async def take(self, wait: float) -> None:
        deadline = anyio.current_time() + wait
        while True:
            try:
                return await self._attempt()
            except RepositoryLocked:
                if anyio.current_time() >= deadline:
                    raise
                pause = self._pause()
                await self.release()
                await anyio.sleep(pause)

    async def _attempt(self) -> None:
        await self._clear_stale()
        self._refuse_conflicts(await self._others())
        await self._write()
        async with task_group() as tasks:
            tasks.start_soon(self._meanwhile)
            if not await self._repository.store.is_prompt():
                await anyio.sleep(self._times.settle.total_seconds())
        self._refuse_conflicts(await self._others())

    def _pause(self) -> float:
        """Two who took turns at refusing each other must not do so for ever."""
        chance = self._written[-1][0] / 256 if self._written else 0.5  # ids are random
        return self._times.retry.total_seconds() * (0.5 + chance)

    async def keep(self, scope: anyio.CancelScope) -> None:
        """Refresh the lock until cancelled; cancel `scope` when it is lost."""
        while not self._lost:
            await anyio.sleep(self._times.watch.total_seconds())
            age = self._repository.now() - self._time
            if age < self._times.refresh:
                continue
            try:
                await self._refresh()
            except ObjectMissing:
                self._lost = "was removed by somebody"
            except StoreError as error:
                logger.warning("lock not refreshed: age=%s: %s", age, error)
                if age >= self._times.give_up:
                    self._lost = f"could not be refreshed for {_span(age)}: {error}"
        scope.cancel()

    async def _refresh(self) -> None:
        """Replace our lock by a fresh one, if it is still there: else others went ahead."""
        old = self._current
        assert old is not None
        await self._repository.store.size(object_name("locks", old))
        await self._write()
        await self._repository.store.size(object_name("locks", old))
        await self._delete(old)

    def raise_if_lost(self) -> None:
        if self._lost and not self.finished:
            raise RepositoryLocked(
                f"our lock on {self._repository.store.location} {self._lost}",
                hint="Others may have changed the repository meanwhile, so the work was stopped; "
                "what was stored before is intact. Run it again.",
            )

    async def release(self) -> None:
        """Remove our lock, whatever else is going on. What cannot be removed goes stale."""
        seconds = self._times.release.total_seconds()
        with anyio.move_on_after(seconds, shield=True):
            for identity in tuple(self._written):
                try:
                    await self._delete(identity)
                except StoreError as error:  # the work is done or has failed, with its own error
                    logger.warning("lock not removed: %s", error)
        _ours.difference_update(self._written)

    async def _write(self) -> None:
        moment = self._repository.now()
        lock = Lock(
            time=moment,
            exclusive=self._exclusive,
            hostname=self._repository.hostname,
            username=self._repository.username,
            pid=os.getpid(),
            uid=os.getuid(),
            gid=os.getgid(),
        )
        identity, sealed = self._repository.seal_unpacked(encode_lock(lock))
        self._written.append(LockId(identity))  # before it is there: a cancel may come in between
        _ours.add(LockId(identity))
        await self._repository.store.put(object_name("locks", identity), sealed)
        self._current, self._time = LockId(identity), moment

    async def _delete(self, identity: LockId) -> None:
        await self._repository.store.delete(object_name("locks", identity))
        self._written.remove(identity)
        _ours.discard(identity)

    async def _others(self) -> dict[LockId, Lock]:
        """Return all locks but ours; one that is unreadable gets some time to become readable."""
        for pause in self._times.unreadable:
            try:
                return await self._load_others()
            except IntegrityError:
                await anyio.sleep(pause.total_seconds())
        return await self._load_others()

    async def _load_others(self) -> dict[LockId, Lock]:
        found = {}
        for name, size in (await self._repository.store.objects("locks/")).items():
            identity = LockId(identity_in(name))
            if not size or identity in self._written:
                continue  # restic, too, takes an empty one for nothing
            try:
                document = await self._repository.load_unpacked("locks", identity)
                with about(name):
                    found[identity] = decode_lock(document)
            except ObjectMissing:
                continue  # released since it was listed
            except IntegrityError as error:
                raise IntegrityError(str(error), hint=_UNREADABLE) from error
        return found

    async def _clear_stale(self) -> None:
        for identity, lock in (await self._others()).items():
            if self._is_stale(identity, lock):
                logger.info("stale lock: %s", _holder(lock))
                try:
                    await self._repository.store.delete(object_name("locks", identity))
                except StoreDenied as error:  # it stands in nobody's way, or is told as a conflict
                    logger.warning("stale lock not removed: %s: %s", _holder(lock), error)

    def _is_stale(self, identity: LockId, lock: Lock) -> bool:
        if self._repository.now() - lock.time > self._times.stale:
            return True
        if lock.hostname != self._repository.hostname or identity in _ours:
            return False
        if lock.pid == os.getpid():  # a predecessor of ours: in a container all get the same pid
            return True
        return not _is_alive(lock.pid)

    def _refuse_conflicts(self, others: dict[LockId, Lock]) -> None:
        for identity, lock in others.items():
            if lock.exclusive or self._exclusive:
                raise self._conflict(lock, stale=self._is_stale(identity, lock))

    def _conflict(self, lock: Lock, *, stale: bool) -> RepositoryLocked:
        how = "exclusively " if lock.exclusive else ""
        age = _span(self._repository.now() - lock.time)
        alone = "" if lock.exclusive else ", and this needs it alone"
        return RepositoryLocked(
            f"{self._repository.store.location} is locked {how}by {_holder(lock)}, "
            f"last heard of {age} ago{alone}",
            hint=_UNREMOVABLE if stale else _WAIT,
        )


_WAIT = (
    "Wait until that process has finished, then try again. If it has died, its lock is cleared by "
    "itself: at once on its own host, elsewhere after 30 minutes. Nothing was changed."
)
_UNREMOVABLE = (
    "That process is gone, and this store does not let us remove its lock. Run `restic unlock` "
    "with a credential that may delete, then try again. Nothing was changed."
)
_UNREADABLE = (
    "If no backup and no restic is at work in this repository, remove it with "
    "`restic unlock --remove-all`, or delete the file. Nothing was changed."
)


def _holder(lock: Lock) -> str:
    return f"{lock.username}@{lock.hostname} (process {lock.pid})"


def _span(age: timedelta) -> str:
    seconds = max(round(age.total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} seconds"
    return f"{seconds // 60} minutes" if seconds < 7200 else f"{seconds // 3600} hours"


def _is_alive(pid: int) -> bool:
    """Tell whether a process of this host runs, without disturbing it."""
    if pid <= 0:
        return True  # nobody's; only its age can tell
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


class _Hangups:
    """How SIGHUP was handled before, and how many of us want it ignored. Main thread only."""

    def __init__(self) -> None:
        self.holders = 0
        self.before: object = None


_hangups = _Hangups()


@contextmanager
def _hangups_ignored() -> Iterator[None]:
    """Ignore SIGHUP in the block. Handlers belong to the main thread, so elsewhere do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _hangups.holders == 0:
        _hangups.before = signal.getsignal(signal.SIGHUP)
        if _hangups.before is not None:  # None: installed by a library in C, which we leave alone
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _hangups.holders += 1
    try:
        yield
    finally:
        _hangups.holders -= 1
        if _hangups.holders == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            signal.signal(signal.SIGHUP, _hangups.before)  # type: ignore[arg-type]
