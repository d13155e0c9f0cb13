"""Restores to scratch: whole or not there, nothing live touched, and no person asked."""

import os
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from mcp_backup.errors import StagingRejected, UsageError
from mcp_backup.format.ids import SnapshotId
from mcp_backup.progress import Progress
from mcp_backup.restore.examining import Means
from mcp_backup.restore.plan import Origin
from mcp_backup.restore.scratch import restore_to_scratch, sweep_scratch
from mcp_backup.store.memory import MemoryStore
from mcp_backup.verbs_restores import RestoreRequest
from tests.repository.packing import new_repository, save_backup
from tests.restore.bench import bench, restorer_on
from tests.system import System, bodies

SCRATCH = RestoreRequest(target="scratch")
IDENTITY = "restore_20261122_120000_00000001"


async def test_scratch_holds_every_source_and_nothing_live_is_touched(system: System) -> None:
    (system.project / ".env").write_text("TOKEN=newer\n")
    system.tasks.unlink()
    async with bench(system) as on:
        plan = await on.plan(SCRATCH)
        assert (plan.approval, plan.approved) == ("none", True)
        report = await on.carry_out(plan.plan_id, consent=False)
        assert await on.restorer.undo_points() == []
    assert (report.status, report.undo_id) == ("staged", "")
    root = system.root / "scratch" / report.restore_id
    assert [Path(target.path) for target in report.targets] == [
        root / "databases" / "notes",
        root / "databases" / "tasks",
        root / "config" / "project",
    ]
    assert len(bodies(root / "databases" / "tasks" / "tasks.db")) == 20
    assert "s3cret" in (root / "config" / "project" / ".env").read_text()
    assert (system.project / ".env").read_text() == "TOKEN=newer\n"
    assert not system.tasks.exists()


async def test_a_source_no_longer_configured_can_be_had_in_scratch(system: System) -> None:
    settings = replace(system.settings, databases=())
    async with bench(replace(system, settings=settings)) as on:
        report = await on.restore(RestoreRequest(target="scratch", databases=("notes",)))
    assert len(bodies(Path(report.targets[0].path) / "notes.db")) == 20


async def foreign(tmp_path: Path) -> tuple[Means, Origin]:
    repository = await new_repository(MemoryStore())
    identity = await save_backup(repository, {"a.txt": [b"one", b"two"]})
    snapshot = (await repository.snapshots())[identity]
    origin = Origin(identity.hex()[:8], SnapshotId(identity), snapshot.tree, snapshot.time, None)
    return Means(repository), origin


async def test_a_snapshot_of_another_program_is_staged_as_a_whole(tmp_path: Path) -> None:
    means, origin = await foreign(tmp_path)
    (target,) = await restore_to_scratch(means, origin, (), tmp_path / "scratch", IDENTITY)
    assert Path(target.path) == tmp_path / "scratch" / IDENTITY / "snapshot"
    assert (Path(target.path) / "data" / "a.txt").read_bytes() == b"onetwo"
    assert target.size == 6


async def test_a_snapshot_of_another_program_is_never_put_live(system: System) -> None:
    async with bench(system) as on:
        bare = replace(on, origin=replace(on.origin, manifest=None))
        with pytest.raises(UsageError, match="not made by mcp-backup"):
            await bare.plan()


async def test_a_rejected_copy_leaves_nothing_in_scratch(system: System) -> None:
    async with bench(system) as on:
        assert on.origin.manifest is not None
        *others, project = on.origin.manifest.sources
        assert project.evidence is not None
        evidence = replace(project.evidence, facts={**project.evidence.facts, "entries": {}})
        manifest = replace(
            on.origin.manifest, sources=(*others, replace(project, evidence=evidence))
        )
        bad = replace(on, origin=replace(on.origin, manifest=manifest))
        with pytest.raises(StagingRejected, match="extra"):
            await bad.restore(SCRATCH)
    assert list((system.root / "scratch").iterdir()) == []


async def test_a_cancel_leaves_nothing_in_scratch(system: System) -> None:
    scope = anyio.CancelScope()

    async def cancelling(progress: Progress) -> None:
        if progress.stage == "examine":
            scope.cancel()

    async with bench(system) as on:
        plan = await on.plan(SCRATCH)
        with scope:
            await on.restorer.restore(
                plan.plan_id, on.origin, Means(on.repository, listener=cancelling)
            )
    assert scope.cancelled_caught
    assert list((system.root / "scratch").iterdir()) == []


async def test_what_a_crash_left_is_swept(system: System) -> None:
    scratch = system.root / "scratch"
    left = scratch / f".{IDENTITY}.partial"
    (left / "databases").mkdir(parents=True)
    (left / "databases").chmod(0o000)
    (scratch / IDENTITY.replace("1", "2")).mkdir()
    (scratch / "mine").mkdir()
    await restorer_on(system).recover()
    assert sorted(os.listdir(scratch)) == ["mine", IDENTITY.replace("1", "2")]


async def test_what_is_being_made_is_not_swept(system: System) -> None:
    swept: list[list[Path]] = []

    async def sweeping(progress: Progress) -> None:
        assert progress.subject
        assert list((system.root / "scratch").iterdir())
        swept.append(sweep_scratch(system.root / "scratch"))

    async with bench(system) as on:
        plan = await on.plan(SCRATCH)
        means = Means(on.repository, listener=sweeping)
        report = await on.restorer.restore(plan.plan_id, on.origin, means)
    assert len(swept) >= 3
    assert not any(swept)
    assert (system.root / "scratch" / report.restore_id).is_dir()
