"""restic agrees with what our prune leaves, and our prune with what restic made."""

import os
from datetime import timedelta
from pathlib import Path

from msgspec import structs

from mcp_backup.forgetting import forget
from mcp_backup.repository.prune import Fate, survey
from mcp_backup.repository.repository import Repository
from mcp_backup.settings_sections import RetentionSettings
from mcp_backup.store.local import LocalStore
from mcp_backup.store.location import create_store
from mcp_backup.verbs import BackupType, CreateRequest, Level
from tests.doubles import FrozenClock
from tests.interop.conftest import Restic
from tests.repository.packing import new_repository
from tests.repository.pooling import noise
from tests.repository.pruning import (
    assert_whole,
    back_up,
    contents,
    prune,
    reopened,
)
from tests.repository.pruning import (
    forget as drop,
)
from tests.system import System, make_system


async def created(restic: Restic) -> Repository:
    return await new_repository(await create_store(str(restic.location)))


def assert_sound(restic: Restic) -> None:
    """Everything is there and intact, and nothing is left for restic's own prune to remove."""
    assert "no errors were found" in restic("check", "--read-data")
    (total,) = [line for line in restic("prune", "--dry-run").splitlines() if "total prune" in line]
    assert total.split()[2:4] == ["0", "blobs"]


def files_below(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


async def test_restic_finds_everything_sound_after_our_prune(restic: Restic) -> None:
    repository = await created(restic)
    gone = []
    for n in range(6):
        files = {"always": [noise(300_000, 1)], f"file {n}": [noise(200_000, 100 + n)]}
        files["often"] = [noise(100_000, n // 2)]
        gone.append(await back_up(repository, files))
    kept = gone.pop()
    await drop(repository, *gone)
    expected = await contents(repository)
    report = await prune(repository)
    assert report.freed_bytes > 1_000_000
    assert_sound(restic)
    assert [snapshot["id"] for snapshot in restic.json("snapshots")] == [kept.hex()]
    await assert_whole(repository.store, expected)


async def test_our_prune_of_a_repository_that_restic_made_keeps_its_snapshots(
    restic: Restic, tmp_path: Path
) -> None:
    restic("init")
    live = tmp_path / "live"
    (live / "deep" / "deeper").mkdir(parents=True)
    for n in range(4):
        (live / "deep" / f"{n}").write_bytes(os.urandom(700_000))
        (live / "deep" / "deeper" / "changing").write_bytes(os.urandom(900_000))
        (live / f"{max(n - 2, 0)}").unlink(missing_ok=True)
        restic("backup", live)
    repository = await reopened(LocalStore(restic.location))
    found = await repository.snapshots()
    await drop(repository, *sorted(found, key=lambda each: found[each].time)[:2])
    expected = await contents(repository)
    assert (await survey(repository)).of(Fate.REPACK)
    await prune(repository)
    assert_sound(restic)
    await assert_whole(repository.store, expected)
    restic("restore", "latest", "--target", tmp_path / "restored")
    restored = tmp_path / "restored" / live.relative_to("/")
    assert files_below(restored) == files_below(live)


async def test_retention_of_a_live_system_leaves_what_restic_calls_sound(
    restic: Restic, tmp_path: Path
) -> None:
    """Snapshots that restic made in it stay, with all their data."""
    made = await make_system(tmp_path / "system")
    retention = RetentionSettings(daily=2, weekly=0, monthly=0, minimum=0)
    system = System(made.root, structs.replace(made.settings, retention=retention))
    theirs = restic.at(system.repository, system.password)
    theirs("backup", system.project)
    clock = FrozenClock()
    async with system.engine(clock) as engine:
        ours = []
        for _ in range(4):
            clock.advance(timedelta(days=1))
            ours.append((await engine.create(CreateRequest(BackupType.FULL))).snapshot_id)
        report = await forget(engine)
        assert [each.snapshot_id for each in report.forgotten] == ours[1::-1]
        assert (await engine.check(Level.DATA)).ok
        assert (await engine.verify(ours[2], Level.RESTORE)).ok
    left = {snapshot["id"] for snapshot in theirs.json("snapshots")}
    assert left > set(ours[2:])
    assert len(left) == 3
    assert_sound(theirs)
