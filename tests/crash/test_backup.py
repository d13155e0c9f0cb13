"""Whatever happens to a backup, and whenever: the old ones are as they were, the new one is whole
or not there, and the next one works."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError, StoreFull, StoreUnavailable
from mcp_backup.store.layout import is_object_name
from mcp_backup.store.local import LocalStore
from mcp_backup.tasks import task_group
from mcp_backup.verbs import CreateRequest, Level
from tests.crash.backups import Branch, Job, Yard, system_in, yard
from tests.doubles import Fault, FaultyStore, How, Verb, full
from tests.interop.conftest import Restic
from tests.system import change, make_system

AT_ONCE = 4
T = TypeVar("T")


class World(Struct, frozen=True):
    """A live system, a repository with one backup of it as it was, and what the next one calls."""

    root: Path
    base: Path
    old: frozenset[str]
    calls: tuple[tuple[Verb, str], ...]
    opening: int  # so many of the calls open the repository

    def branch(self, name: str) -> Branch:
        """A copy of the repository, to be ruined."""
        place = self.base.with_name(name)
        shutil.copytree(self.base, place)
        return system_in(self.root, place)

    def job(self, system: Branch, fault: Fault | None = None) -> Job:
        place = str(system.repository.parent)
        if fault is None:
            return Job(str(self.root), place)
        return Job(str(self.root), place, fault.verb, fault.nth, fault.how.name)

    def everywhere(self, before: How, after: How) -> list[Fault]:
        """Every call before it took effect; and after, where a call has an effect."""
        faults = [Fault("any", n + 1, before) for n in range(len(self.calls))]
        for verb in ("put", "delete"):
            times = sum(called == verb for called, _ in self.calls)
            faults += [Fault(verb, n + 1, after) for n in range(times)]
        return faults

    def changes(self, fault: Fault) -> bool:
        """Whether the call it is for changes the store; else the state there is not a new one."""
        return fault.verb != "any" or self.calls[fault.nth - 1][0] in ("put", "delete")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One backup; then live data changes, so that the next backup adds to every kind of object."""
    return anyio.run(make_world, tmp_path_factory.mktemp("world"))


async def make_world(place: Path) -> World:
    root, base = place / "live", place / "base"
    made = await make_system(root, rows=40)
    base.mkdir()
    made.repository.rename(base / "repository")
    system = system_in(root, base)
    async with system.engine() as engine:
        old = await engine.create(CreateRequest(verify=False))
    change(system.notes)
    (system.project / ".env").write_text("TOKEN=another\n")
    world = World(root, base, frozenset({old.backup_id}), (), 0)
    rehearsal = world.branch("rehearsal")
    store = FaultyStore(LocalStore(rehearsal.repository))
    async with rehearsal.engine(store=store) as engine:
        opening = len(store.calls)
        await engine.create(CreateRequest())
    return replace(world, calls=tuple(store.calls), opening=opening)


def assert_whole_objects(repository: Path) -> None:
    """Nothing has an object's name that is not the object; what else there is, is temporary."""
    for path in repository.rglob("*"):
        if path.is_dir():
            continue
        name = path.relative_to(repository).as_posix()
        if is_object_name(name):
            assert name == "config" or sha256(path.read_bytes()).hexdigest() == path.name, name
        else:
            assert is_object_name(name.split("-tmp-")[0]), name


async def assert_sound(world: World, system: Branch, engine: Engine) -> set[str]:
    """The invariants that hold at any time; returns the backups that are new."""
    assert_whole_objects(system.repository)
    report = await engine.check(Level.STRUCTURE)
    assert report.findings == ()
    backups = {entry.backup_id for entry in (await engine.backups()).entries}
    assert backups >= world.old
    assert len(backups - world.old) <= 1
    for backup in backups:
        verified = await engine.verify(backup, Level.DATA)
        assert verified.findings == ()
        assert verified.sources == ("notes", "project")
    return backups - world.old


async def assert_goes_on(system: Branch, engine: Engine) -> None:
    """The next backup works, and nothing is left lying about."""
    report = await engine.create(CreateRequest(verify=False))
    assert (report.status, len(report.outcomes)) == ("completed", 2)
    assert os.listdir(system.repository / "locks") == []
    assert os.listdir(system.settings.scratch) == []


async def at_once(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work on every item, several at a time: most of it is waiting for locks to settle."""
    left = iter(items)

    async def take() -> None:
        for item in left:
            await work(item)

    async with task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(take)


async def test_a_backup_killed_at_any_call_of_the_store_is_there_whole_or_not_at_all(
    world: World, restic: Restic
) -> None:
    assert len(world.calls) > 25
    committed: set[bool] = set()

    async def meet(point: tuple[int, Fault]) -> None:
        number, fault = point
        system = world.branch(f"killed-{number}")
        async with lent(yards) as yard:
            assert await yard.do(world.job(system, fault)) == -signal.SIGKILL
        assert_whole_objects(system.repository)
        async with system.engine() as engine:
            if world.changes(fault):
                committed.add(bool(await assert_sound(world, system, engine)))
                assert os.listdir(system.repository / "locks") == []  # the dead one's was cleared
            if fault.how is How.KILL_AFTER:
                judge = restic.at(system.repository, system.password)
                assert "no errors were found" in await to_thread.run_sync(judge, "check")
            if fault.how is How.KILL_AFTER or number % 4 == 0:
                await assert_goes_on(system, engine)
        shutil.rmtree(system.repository.parent)

    with ExitStack() as stack:
        yards = [stack.enter_context(yard()) for _ in range(AT_ONCE)]
        await at_once(enumerate(world.everywhere(How.KILL, How.KILL_AFTER)), meet)
    assert committed == {True, False}


@asynccontextmanager
async def lent(yards: list[Yard]) -> AsyncIterator[Yard]:
    """A yard that nobody else uses; there are as many as tasks."""
    one = yards.pop()
    try:
        yield one
    finally:
        yards.append(one)


async def test_a_store_that_fails_at_any_call_is_told_and_nothing_is_half_done(
    world: World,
) -> None:
    """The same engine goes on: nothing that it keeps in memory misleads it."""
    told: set[type[BackupError] | None] = set()
    puts = sum(verb == "put" for verb, _ in world.calls)  # the last of them is the snapshot

    async def meet(point: tuple[int, Fault]) -> None:
        number, fault = point
        system = world.branch(f"failed-{number}")
        store = FaultyStore(LocalStore(system.repository), fault)
        async with system.engine(store=store) as engine:
            error = await attempt(engine)
            assert error is None or str(error) == str(fault.error)
            told.add(type(error) if error else None)
            if world.changes(fault):
                new = await assert_sound(world, system, engine)
                answer_lost = fault.how is How.AFTER and (fault.verb, fault.nth) == ("put", puts)
                assert bool(new) == (error is None or answer_lost)
            if fault.how is How.AFTER or number % 4 == 0:
                await assert_goes_on(system, engine)
        assert_whole_objects(system.repository)
        shutil.rmtree(system.repository.parent)

    unanswered = world.everywhere(How.BEFORE, How.AFTER)[world.opening :]
    no_room = [Fault("put", n + 1, error=full()) for n in range(puts)]
    await at_once(enumerate([*unanswered, *no_room]), meet)
    assert told == {None, StoreUnavailable, StoreFull}  # None: a lock that could not be removed


async def attempt(engine: Engine) -> BackupError | None:
    """Back up; return what was told instead of a completed backup, if anything."""
    try:
        assert (await engine.create(CreateRequest())).status == "completed"
    except (StoreUnavailable, StoreFull) as error:
        return error
    return None


async def test_a_store_that_fails_while_it_is_opened_is_told(world: World) -> None:
    system = system_in(world.root, world.base)
    for fault in world.everywhere(How.BEFORE, How.AFTER)[: world.opening]:
        store = FaultyStore(LocalStore(system.repository), fault)
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await system.engine(store=store).__aenter__()
