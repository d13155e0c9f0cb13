"""A store that lies, cuts short, hides, delays: at every call of a backup, a prune and a restore.

That it fails, or does what was asked and loses the answer, is met in tests/crash/test_backup.py
and tests/repository/test_prune.py for the first two, and here for restores.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import structs

from mcp_backup.errors import BackupError
from mcp_backup.repository.check import check
from mcp_backup.settings import Settings
from mcp_backup.store.local import LocalStore
from mcp_backup.store.memory import MemoryStore
from mcp_backup.verbs import BackupReport, BackupType, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.doubles import FOREVER, Fault, FaultyStore, How
from tests.repository.pruning import assert_whole, contents, prune, reopened
from tests.repository.test_prune import copied, objects, scene
from tests.system import System, make_system

REQUEST = CreateRequest(BackupType.CONFIG)
LIES = (How.TRUNCATE, How.LIE, How.OTHER)
HIDDEN = ("index/", "data/", "locks/")  # who hides a snapshot from a prune has deleted it


def points(calls: Sequence[tuple[str, str]], *, fail: bool = False) -> list[Fault]:
    """Every way to lie at every call, and with `fail` every way to fail as well."""
    found = [Fault("any", n, how) for n in places(calls, "get") for how in LIES]
    for prefix in HIDDEN:
        found += [Fault("any", n, How.SHORT) for n in places(calls, "objects", prefix)]
    ways = (How.BEFORE, How.AFTER) if fail else ()
    return found + [Fault("any", n + 1, how) for n in range(len(calls)) for how in ways]


def places(calls: Sequence[tuple[str, str]], verb: str, name: str = "") -> list[int]:
    return [n + 1 for n, call in enumerate(calls) if call[0] == verb and call[1].startswith(name)]


async def test_a_lie_at_any_call_of_a_prune_costs_no_snapshot_anything() -> None:
    template = MemoryStore()
    await scene(template)
    kept = await contents(await reopened(template))
    calm = FaultyStore(copied(template))
    await prune(await reopened(calm))
    done, told = objects(calm.store), 0
    for fault in points(calm.calls):
        store = copied(template)
        try:
            await prune(await reopened(FaultyStore(store, fault)))
        except BackupError:
            told += 1
        await assert_whole(store, kept)
        await prune(await reopened(store))
        await assert_whole(store, kept)
        assert len(objects(store)) == len(done), calm.calls[fault.nth - 1]
    assert told > 10


@pytest.fixture
async def system(tmp_path: Path) -> System:
    """One set of files, and a repository with two backups of them, which differ."""
    made = await make_system(tmp_path / "live", rows=1)
    settings: Settings = structs.replace(made.settings, databases=())
    system = System(made.root, settings)
    async with system.engine() as engine:
        await engine.create(REQUEST)
        (system.project / "pyproject.toml").write_text('[project]\nname = "newer"\n')
        await engine.create(REQUEST)
    return system


async def loaded(system: System) -> MemoryStore:
    """The repository's objects, where they are quickly copied."""
    disk, memory = LocalStore(system.repository), MemoryStore(str(system.repository))
    for name in await disk.objects(""):
        memory.contents[name] = await disk.get(name)
    return memory


async def back_up(system: System, store: FaultyStore | MemoryStore) -> BackupReport | None:
    """Back up; nothing is returned where an error was told."""
    try:
        async with system.engine(store=store) as engine:
            return await engine.create(REQUEST)
    except BackupError:
        return None


async def test_a_lie_at_any_call_of_a_backup_harms_none_and_the_next_succeeds(
    system: System,
) -> None:
    template = await loaded(system)
    (system.project / ".env").write_text("TOKEN=another\n")
    calm = FaultyStore(copied(template))
    assert await back_up(system, calm)
    told = 0
    for number, fault in enumerate(points(calm.calls)):
        if fault.how in LIES and fault.how is not LIES[fault.nth % len(LIES)]:
            continue  # each call meets one of them; the others are met by the restore
        store = copied(template)
        report = await back_up(system, FaultyStore(store, fault))
        told += report is None or report.status != "completed" or report.verification != "passed"
        async with system.engine(store=store) as engine:
            found = await check(engine.repository, Level.DATA)
            assert (found.findings, found.snapshots) in [((), 2), ((), 3)]
            assert {name for name in template.contents if not name.startswith("locks/")} <= set(
                store.contents
            )
        if number % 4 == 0:
            again = await back_up(system, store)
            assert again is not None
            assert (again.status, again.verification) == ("completed", "passed")
    assert told > 5


async def test_a_fault_at_any_call_of_a_restore_gives_all_or_nothing(system: System) -> None:
    template = await loaded(system)
    expected = files(system.project)
    calm = FaultyStore(copied(template))
    assert await restored(system, calm) == expected
    whole = 0
    for fault in points(calm.calls, fail=True):
        given = await restored(system, FaultyStore(copied(template), fault))
        assert given in (None, expected), (fault, calm.calls[fault.nth - 1])
        whole += given is not None
        if fault.how is How.BEFORE and calm.calls[fault.nth - 1][0] in ("get", "put"):
            assert given is None, "an error was swallowed"
        assert not any(path.name.startswith(".") for path in system.settings.scratch.iterdir())
    assert await restored(system, copied(template)) == expected
    assert whole < len(points(calm.calls, fail=True)) // 2


async def restored(system: System, store: FaultyStore | MemoryStore) -> dict[str, bytes] | None:
    """Restore to scratch; the files, or nothing where an error was told."""
    try:
        async with system.engine(store=store) as engine:
            plan = await engine.plan_restore(RestoreRequest(target="scratch"))
            (target,) = (await engine.restore(plan.plan_id)).targets
            return files(Path(target.path))
    except BackupError:
        return None


def files(root: Path) -> dict[str, bytes]:
    return {
        os.path.relpath(os.path.join(place, name), root): Path(place, name).read_bytes()
        for place, _, names in os.walk(root)
        for name in names
    }


async def test_a_slow_store_is_only_slow(system: System) -> None:
    store = await loaded(system)
    slow = FaultyStore(store, Fault("any", 1, How.DELAY, times=FOREVER))
    report = await back_up(system, slow)
    assert report is not None
    assert (report.status, report.verification) == ("completed", "passed")
    assert await restored(system, slow) == files(system.project)
