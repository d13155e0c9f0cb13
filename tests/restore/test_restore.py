"""Restores over live data: what changes, what is kept, what is refused, and the way back."""

import errno
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from mcp_backup.errors import (
    ApprovalRequired,
    PlanExpired,
    RestoreError,
    RestoreInterrupted,
    RolledBack,
    SourceUnreadable,
    StagingRejected,
    TargetBusy,
    UnknownPlan,
)
from mcp_backup.restore.journal import read_all
from mcp_backup.restore.turn import turn
from mcp_backup.sources.source import Component, Finding
from mcp_backup.verbs_restores import RestoreRequest
from tests.doubles import FrozenClock
from tests.restore.bench import Bench, bench, restorer_on, state_of
from tests.system import System, bodies, change

CONFIG = RestoreRequest(components=(Component.CONFIG,))
NOTES = RestoreRequest(databases=("notes",))
Contents = Mapping[str, bytes | list[str] | None]


def contents(system: System) -> Contents:
    """Everything live, as its users see it."""
    files: dict[str, bytes | list[str] | None] = {
        str(path.relative_to(system.root)): path.read_bytes()
        for path in sorted(system.project.rglob("*"))
        if path.is_file()
    }
    for database in (system.notes, system.tasks):
        files[database.name] = bodies(database) if database.exists() else None
    return files


def wreck(system: System) -> Contents:
    """Change something in every source; return what is live then."""
    change(system.notes)
    system.tasks.unlink()
    for side in ("-wal", "-shm"):
        system.tasks.with_name(system.tasks.name + side).unlink(missing_ok=True)
    (system.project / ".env").write_text("TOKEN=wrecked\n")
    (system.project / "settings" / "server.yaml").unlink()
    (system.project / "settings" / "newer.yaml").write_text("port: 1\n")
    return contents(system)


async def test_everything_comes_back_and_what_the_backup_does_not_name_is_left_alone(
    system: System,
) -> None:
    before = contents(system)
    wreck(system)
    async with bench(system) as on:
        report = await on.restore()
    newer = {"project/settings/newer.yaml": b"port: 1\n"}
    assert contents(system) == {**before, **newer}
    assert report.status == "restored"
    assert [target.source for target in report.targets] == ["notes", "tasks", "project"]
    assert report.targets[0].path == str(system.notes)
    assert "newer.yaml" in report.targets[2].notes[0]


async def test_undo_puts_back_what_was_live_and_so_does_undoing_that(system: System) -> None:
    before = contents(system)
    wrecked = wreck(system)
    async with bench(system) as on:
        report = await on.restore()
        await on.restorer.undo(report.undo_id, consent=True)
        assert contents(system) == wrecked
        with pytest.raises(RestoreError, match="was undone already"):
            await on.restorer.undo(report.undo_id, consent=True)
        (point,) = await on.restorer.undo_points()
        assert point.restore_id != report.undo_id
        await on.restorer.undo(point.restore_id, consent=True)
    newer = {"project/settings/newer.yaml": b"port: 1\n"}
    assert contents(system) == {**before, **newer}


async def test_rows_written_after_the_plan_do_not_void_it_and_are_kept(system: System) -> None:
    before = bodies(system.notes)
    async with bench(system) as on:
        plan = await on.plan(NOTES)
        change(system.notes, "written after the plan")
        report = await on.carry_out(plan.plan_id)
        assert bodies(system.notes) == before
        await on.restorer.undo(report.undo_id, consent=True)
    assert bodies(system.notes)[0] == "written after the plan"


async def test_a_plan_tells_what_is_live_and_what_would_be_lost(system: System) -> None:
    change(system.notes)
    system.tasks.unlink()
    (system.project / ".env").write_text("TOKEN=newer\n")
    async with bench(system) as on:
        plan = await on.plan()
    notes, tasks, project = plan.targets
    assert (notes.live_state, notes.action) == ("present", "replace")
    assert "would be lost" in notes.lost
    assert (tasks.live_state, tasks.action, tasks.lost) == ("absent", "create", "")
    assert project.lost.endswith("1 of 3 files differ from the backup and would be replaced: .env")
    assert plan.needed_bytes > notes.live_bytes + notes.backup_bytes
    assert plan.free_bytes > 0


async def test_without_approval_nothing_is_touched(system: System) -> None:
    wrecked = wreck(system)
    async with bench(system) as on:
        plan = await on.plan()
        assert (plan.approval, plan.approved) == ("human", False)
        with pytest.raises(ApprovalRequired, match=plan.plan_id):
            await on.carry_out(plan.plan_id, consent=False)
        assert contents(system) == wrecked
        await restorer_on(system).approve(plan.plan_id, "ada")
        await on.carry_out(plan.plan_id, consent=False)
    assert contents(system) != wrecked


@pytest.mark.parametrize("what", ["file", "inode", "damaged", "gone"])
async def test_a_target_that_changed_needs_a_new_plan(system: System, what: str) -> None:
    async with bench(system) as on:
        plan = await on.plan()
        match what:
            case "file":
                (system.project / ".env").write_text("TOKEN=changed\n")
            case "inode":
                copy = system.root / "copy.db"
                copy.write_bytes(system.notes.read_bytes())
                copy.replace(system.notes)
            case "damaged":
                with system.notes.open("r+b") as file:
                    file.write(b"garbage" * 100)
            case "gone":
                system.tasks.unlink()
        with pytest.raises(PlanExpired, match="the live file changed since the plan was made"):
            await on.carry_out(plan.plan_id)
    assert not on.restores.exists() or list(on.restores.iterdir()) == []


async def test_a_plan_is_good_for_one_restore(system: System) -> None:
    async with bench(system) as on:
        plan = await on.plan(CONFIG)
        report = await on.carry_out(plan.plan_id)
        with pytest.raises(PlanExpired, match=f"was used by {report.restore_id}"):
            await on.carry_out(plan.plan_id)


async def test_a_damaged_database_is_kept_byte_for_byte(system: System) -> None:
    before = bodies(system.notes)
    for side in ("-wal", "-shm"):
        system.notes.with_name(system.notes.name + side).unlink(missing_ok=True)
    garbage = os.urandom(30_000)
    system.notes.write_bytes(garbage)
    async with bench(system) as on:
        plan = await on.plan(NOTES)
        assert plan.targets[0].live_state == "damaged"
        assert "damaged" in plan.warnings[0]
        report = await on.carry_out(plan.plan_id)
        assert bodies(system.notes) == before
        await on.restorer.undo(report.undo_id, consent=True)
    assert system.notes.read_bytes() == garbage


async def test_a_copy_that_is_not_what_was_captured_is_rejected(system: System) -> None:
    wrecked = wreck(system)
    async with bench(system) as on:
        assert on.origin.manifest is not None
        notes, *others = on.origin.manifest.sources
        assert notes.evidence is not None
        facts = {**notes.evidence.facts, "tables": {**notes.evidence.facts["tables"], "notes": 7}}
        altered = replace(notes, evidence=replace(notes.evidence, facts=facts))
        manifest = replace(on.origin.manifest, sources=(altered, *others))
        bad = replace(on, origin=replace(on.origin, manifest=manifest))
        with pytest.raises(StagingRejected, match=r"row-count notes: expected 7, got 20"):
            await bad.restore()
    assert contents(system) == wrecked
    assert list(on.restores.iterdir()) == []


def read_back(on: Bench, *, verified: bool = True, **facts: object) -> Bench:
    """A backup that says it was read back and examined, and of `notes` what is not so."""
    assert on.origin.manifest is not None
    notes, *others = on.origin.manifest.sources
    assert notes.evidence is not None
    evidence = replace(notes.evidence, facts={**notes.evidence.facts, **facts})
    sources = (replace(notes, evidence=evidence, verified=verified), *others)
    manifest = replace(on.origin.manifest, sources=sources)
    return replace(on, origin=replace(on.origin, manifest=manifest))


async def test_what_was_examined_when_it_was_backed_up_is_proven_by_its_bytes(
    system: System,
) -> None:
    wrecked = wreck(system)
    async with bench(system) as on:
        with pytest.raises(StagingRejected, match="row-count"):
            await read_back(on, verified=False, tables={}).restore(NOTES)
        assert contents(system) == wrecked
        assert (await read_back(on, tables={}).restore(NOTES)).status == "restored"


async def test_a_proven_copy_must_be_the_same_to_the_byte(system: System) -> None:
    wrecked = wreck(system)
    async with bench(system) as on:
        bad = read_back(on)
        assert bad.origin.manifest is not None
        notes, *others = bad.origin.manifest.sources
        assert notes.evidence is not None
        files = (replace(notes.evidence.files[0], digest=f"segments:{'00' * 32}"),)
        altered = replace(notes, evidence=replace(notes.evidence, files=files))
        manifest = replace(bad.origin.manifest, sources=(altered, *others))
        with pytest.raises(StagingRejected, match=r"digest notes\.db: expected segments:00"):
            await replace(bad, origin=replace(bad.origin, manifest=manifest)).restore(NOTES)
    assert contents(system) == wrecked


async def test_a_proven_copy_must_open_here_with_the_schema_it_had(system: System) -> None:
    wrecked = wreck(system)
    async with bench(system) as on:
        with pytest.raises(StagingRejected, match=r"schema notes\.db: the schema is not the one"):
            await read_back(on, schema="00" * 32).restore(NOTES)
    assert contents(system) == wrecked


async def test_a_copy_without_a_digest_is_examined_whatever_the_backup_says(
    system: System,
) -> None:
    wrecked = wreck(system)
    async with bench(system) as on:
        bad = read_back(on, tables={})
        assert bad.origin.manifest is not None
        notes, *others = bad.origin.manifest.sources
        assert notes.evidence is not None
        altered = replace(notes, evidence=replace(notes.evidence, files=()))
        manifest = replace(bad.origin.manifest, sources=(altered, *others))
        with pytest.raises(StagingRejected, match="row-count"):
            await replace(bad, origin=replace(bad.origin, manifest=manifest)).restore(NOTES)
    assert contents(system) == wrecked


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("restorer", r"staging in .*/staged/.*: Input/output error"),
        ("swap", r"keeping an undo point in .*/undo/.*: Input/output error"),
    ],
)
async def test_a_disk_that_refuses_is_named_and_nothing_live_is_touched(
    system: System, monkeypatch: pytest.MonkeyPatch, place: str, told: str, verified: bool
) -> None:
    def refuse(_directory: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    wrecked = wreck(system)
    monkeypatch.setattr(f"mcp_backup.restore.{place}.fsync_tree", refuse)
    async with bench(system) as on:
        with pytest.raises(RestoreError, match=told):
            await read_back(on, verified=verified).restore(NOTES)
    assert contents(system) == wrecked
    assert list(on.restores.iterdir()) == []


async def test_findings_that_the_source_had_itself_do_not_stop_a_restore(system: System) -> None:
    async with bench(system) as on:
        assert on.origin.manifest is not None
        notes, *others = on.origin.manifest.sources
        assert notes.evidence is not None
        facts = {**notes.evidence.facts, "user_version": 3}
        known = (Finding("pragma", "notes.db", "as it was when the backup was read back"),)
        altered = replace(notes, evidence=replace(notes.evidence, facts=facts), findings=known)
        manifest = replace(on.origin.manifest, sources=(altered, *others))
        changed = replace(on, origin=replace(on.origin, manifest=manifest))
        assert (await changed.restore(NOTES)).status == "restored"


def _sabotage_staged(system: System, key: str) -> None:
    (record,) = (record for record in read_all(state_of(system) / "restores") if not record.outcome)
    for path in (record.directory / "staged" / key).iterdir():
        path.unlink()


async def test_when_the_second_exchange_fails_the_first_is_put_back(system: System) -> None:
    change(system.notes)
    (system.project / ".env").write_text("TOKEN=newer\n")
    before = contents(system)

    def step(what: str) -> None:
        if what == "exchange databases/tasks":
            assert bodies(system.notes)[0] != "changed"  # the first is new by now
            _sabotage_staged(system, "databases/tasks")

    async with bench(system, step) as on:
        with pytest.raises(RolledBack, match="put back: databases/notes") as caught:
            await on.restore()
        assert "as it was before the restore" in caught.value.hint
        assert contents(system) == before
        assert await on.restorer.undo_points() == []
    assert list(on.restores.iterdir()) == []


async def test_when_the_first_exchange_fails_its_own_error_is_told(system: System) -> None:
    before = contents(system)

    def step(what: str) -> None:
        if what == "exchange databases/notes":
            _sabotage_staged(system, "databases/notes")

    async with bench(system, step) as on:
        with pytest.raises(SourceUnreadable):
            await on.restore()
    assert contents(system) == before
    assert list(on.restores.iterdir()) == []


async def test_what_cannot_be_put_back_is_named_and_its_undo_point_is_kept(
    system: System,
) -> None:
    change(system.notes)
    away = system.root / "away"

    def step(what: str) -> None:
        if what == "exchange databases/tasks":
            _sabotage_staged(system, "databases/tasks")
            (record,) = read_all(state_of(system) / "restores")
            (record.directory / "undo" / "databases" / "notes").rename(away)

    async with bench(system, step) as on:
        with pytest.raises(RestoreInterrupted, match="could not be put back: databases/notes") as e:
            await on.restore()
        (point,) = await on.restorer.undo_points()
        assert f"mcp-backup undo {point.restore_id}" in e.value.hint
        (record,) = read_all(on.restores)
        away.rename(record.directory / "undo" / "databases" / "notes")
    async with bench(system) as on:
        await on.restorer.undo(point.restore_id, consent=True)
    assert bodies(system.notes)[0] == "changed"


async def test_a_cancel_while_staging_leaves_nothing(system: System) -> None:
    wrecked = wreck(system)
    scope = anyio.CancelScope()

    def step(what: str) -> None:
        if what == "stage config/project":
            scope.cancel()

    async with bench(system, step) as on:
        with scope:
            await on.restore()
    assert scope.cancelled_caught
    assert contents(system) == wrecked
    assert list(on.restores.iterdir()) == []


async def test_a_cancel_during_the_exchange_does_not_split_it(system: System) -> None:
    before = contents(system)
    change(system.notes)
    (system.project / ".env").write_text("TOKEN=newer\n")
    scope = anyio.CancelScope()

    def step(what: str) -> None:
        if what == "exchange databases/notes":
            scope.cancel()

    async with bench(system, step) as on:
        with scope:
            await on.restore()
        assert scope.cancelled_caught
        assert contents(system) == before
        assert len(await on.restorer.undo_points()) == 1


async def test_an_undo_needs_a_person_too_and_its_plan_is_bound(system: System) -> None:
    async with bench(system) as on:
        report = await on.restore(CONFIG)
        with pytest.raises(ApprovalRequired) as first:
            await on.restorer.undo(report.undo_id)
        with pytest.raises(ApprovalRequired) as again:
            await on.restorer.undo(report.undo_id)
        assert str(first.value) == str(again.value)  # one plan, not one a call
        plan_id = str(first.value).split()[1]
        plan = await on.restorer.approve(plan_id, "ada")
        assert plan.undoes == report.undo_id
        (system.project / ".env").write_text("TOKEN=changed since it was approved\n")
        with pytest.raises(ApprovalRequired) as other:
            await on.restorer.undo(report.undo_id)
        assert plan_id not in str(other.value)
        await on.restorer.approve(str(other.value).split()[1], "ada")
        await on.restorer.undo(report.undo_id)


@pytest.mark.parametrize("identity", ["../../x", "restore_20261122_120000_00000000", "latest"])
async def test_an_unknown_restore_cannot_be_undone(system: System, identity: str) -> None:
    with pytest.raises(UnknownPlan, match="no restore has the id"):
        await restorer_on(system).undo(identity, consent=True)


async def test_a_holder_of_a_file_that_undo_would_remove_is_named(system: System) -> None:
    system.tasks.unlink()
    async with bench(system) as on:
        report = await on.restore(RestoreRequest(databases=("tasks",)))
        holder = await anyio.open_process(
            ["python3", "-c", f"f=open({str(system.tasks)!r}); print(1, flush=True); input()"]
        )
        async with holder:
            assert holder.stdout is not None
            await holder.stdout.receive()
            with pytest.raises(TargetBusy, match=str(holder.pid)):
                await on.restorer.undo(report.undo_id, consent=True)
            assert len(bodies(system.tasks)) == 20
            holder.terminate()
        await on.restorer.undo(report.undo_id, consent=True)
    assert not system.tasks.exists()


@pytest.mark.parametrize("apart", [timedelta(minutes=1), timedelta(milliseconds=90)])
async def test_the_newest_undo_points_are_kept(system: System, apart: timedelta) -> None:
    clock = FrozenClock()
    async with bench(system, now=clock, undo_keep=2) as on:
        reports = []
        for _ in range(4):
            clock.advance(apart)
            reports.append(await on.restore(CONFIG))
        points = await on.restorer.undo_points()
        assert [point.restore_id for point in points] == [
            report.undo_id for report in reversed(reports[2:])
        ]
        assert len(list(on.restores.iterdir())) == 2
        with pytest.raises(UnknownPlan):
            await on.restorer.undo(reports[0].undo_id, consent=True)


async def test_one_restore_at_a_time(tmp_path: Path) -> None:
    async with turn(tmp_path):
        with pytest.raises(TargetBusy, match="another restore is running"):
            async with turn(tmp_path, wait_seconds=0):
                pass
    async with turn(tmp_path, wait_seconds=0):
        pass


async def test_a_file_set_whose_root_is_gone_is_made_again(system: System) -> None:
    before = contents(system)
    for path in sorted(system.project.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    system.project.rmdir()
    async with bench(system) as on:
        report = await on.restore(CONFIG)
        assert contents(system) == before
        await on.restorer.undo(report.undo_id, consent=True)
    assert not system.project.exists()
