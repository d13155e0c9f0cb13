"""Every verb on record, whoever asks and however it ends."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError, UnknownBackup
from mcp_backup.forgetting import forget, prune
from mcp_backup.history import Asker, asked_by
from mcp_backup.progress import Progress
from mcp_backup.verbs import CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.system import System, count, make_system

ALL = {("databases", "notes"), ("databases", "tasks"), ("config", "project")}


@pytest.fixture
async def system(tmp_path: Path) -> System:
    return await make_system(tmp_path / "system")


@pytest.fixture
async def engine(system: System) -> AsyncIterator[Engine]:
    async with system.engine() as engine:
        yield engine


def history_of(engine: Engine) -> Path:
    return engine.state / "history.db"


async def test_every_verb_is_on_record_with_who_asked(system: System, engine: Engine) -> None:
    with asked_by(Asker("terminal", "somebody", tool="create")):
        backup = await engine.create(CreateRequest())
    with asked_by(Asker("mcp", "an agent", "1.2", "verify_backup")):
        await engine.verify("latest", Level.STRUCTURE)
    await engine.check()
    plan = await engine.plan_restore(RestoreRequest(databases=("notes",)))
    with asked_by(Asker("terminal", "somebody", tool="approve")):
        await engine.approve(plan.plan_id, "somebody")
    with asked_by(Asker("mcp", "an agent", "1.2", "restore_backup")):
        restored = await engine.restore(plan.plan_id)
    await engine.undo(restored.undo_id, consent=True)
    await forget(engine)
    await prune(engine)

    runs = list(reversed(await engine.history.runs()))

    verbs = ["create", "verify", "check", "approve", "restore", "undo", "forget", "prune"]
    assert [run.verb for run in runs] == verbs
    assert {run.outcome for run in runs} == {"completed"}
    assert runs[0].asker == Asker("terminal", "somebody", tool="create")
    assert (runs[3].subject, runs[3].asker.name) == (plan.plan_id, "somebody")
    assert (runs[4].subject, runs[4].backup_id) == (plan.plan_id, backup.backup_id)
    assert runs[4].asker == Asker("mcp", "an agent", "1.2", "restore_backup")
    assert [(s.name, s.outcome, s.message) for s in runs[4].sources] == [
        ("notes", "restored", str(system.notes))
    ]


async def test_a_backup_is_on_record_with_what_it_read_added_and_stored(engine: Engine) -> None:
    report = await engine.create(CreateRequest())
    (run,) = await engine.history.runs()

    assert (run.backup_id, run.subject, run.read) == (report.backup_id, "full", report.read_bytes)
    assert (run.added, run.stored) == (report.new_bytes, report.added_bytes)
    assert run.added > run.stored > 0
    assert {(source.component, source.name) for source in run.sources} == ALL
    assert (await engine.history.last_success()).keys() == ALL


async def test_a_dry_run_is_not_on_record(engine: Engine) -> None:
    await forget(engine, dry_run=True)
    await prune(engine, dry_run=True)
    assert await engine.history.runs() == []


async def test_a_failure_is_on_record_under_its_code(system: System, engine: Engine) -> None:
    with pytest.raises(UnknownBackup):
        await engine.verify("latest")
    system.tasks.unlink()
    await engine.create(CreateRequest())

    partial, failed = await engine.history.runs()
    assert (failed.outcome, failed.error_code) == ("failed", "unknown-backup")
    assert partial.outcome == "partial"
    told = {source.name: source.message for source in partial.sources}
    assert told["notes"] == ""
    assert "does not exist" in told["tasks"]


async def test_a_cancelled_backup_is_on_record_as_cancelled(engine: Engine) -> None:
    with anyio.CancelScope() as scope:

        async def cancel(progress: Progress) -> None:
            scope.cancel()  # at the first word of progress

        await engine.create(CreateRequest(), cancel)

    assert scope.cancelled_caught
    assert [run.outcome for run in await engine.history.runs()] == ["cancelled"]


async def test_a_backup_without_a_history_is_made_and_says_so(engine: Engine) -> None:
    path = history_of(engine)
    path.unlink()
    path.mkdir()

    report = await engine.create(CreateRequest())

    assert report.status == "completed"
    assert len(report.warnings) == 1
    assert "the history at" in report.warnings[0]
    assert len((await engine.backups()).entries) == 1


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
async def test_a_full_disk_under_the_history_costs_no_backup(
    system: System, engine: Engine
) -> None:
    await engine.history.end(await engine.history.begin("check"), "completed")
    state = engine.state
    (state / "history.db").rename(system.root / "history.db")
    mounted = await anyio.run_process(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(state)], check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        (state / "history.db").write_bytes((system.root / "history.db").read_bytes())
        (state / "filler").write_bytes(bytes(4096))
        fill(state / "filler")

        report = await engine.create(CreateRequest())

        assert report.status == "completed"
        assert any("history" in warning for warning in report.warnings)
        (state / "filler").unlink()
        assert [run.verb for run in await engine.history.runs()] == ["check"]
    finally:
        await anyio.run_process(["umount", "-l", str(state)])


def fill(path: Path) -> None:
    """Make a file as large as the disk allows."""
    try:
        with path.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        return


async def test_a_lost_history_is_rebuilt_from_the_repository(system: System) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        report = await engine.create(CreateRequest(databases=("notes",)))
        known = await engine.history.last_success()
        history_of(engine).unlink()

    async with system.engine() as engine:
        runs = await engine.history.runs()
        again = await engine.history.last_success()

    assert runs[0].backup_id == report.backup_id
    assert [run.message for run in runs] == ["rebuilt from the repository"] * 2
    assert again.keys() == known.keys()


async def test_a_damaged_history_is_rebuilt_and_kept_aside(system: System) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        path = history_of(engine)
    path.write_bytes(b"not a database" * 1000)

    async with system.engine() as engine:
        runs = await engine.history.runs()
        aside = await engine.history.damaged()

    assert len(runs) == 1
    assert path.with_name(aside).read_bytes() == b"not a database" * 1000


async def test_an_engine_whose_history_is_unusable_still_lists_and_restores(
    system: System,
) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        history_of(engine).unlink()
        history_of(engine).mkdir()

    async with system.engine() as engine:
        assert len((await engine.backups()).entries) == 1
        plan = await engine.plan_restore(RestoreRequest())
        await engine.restore(plan.plan_id, consent=True)
        with pytest.raises(BackupError, match="history"):
            await engine.history.runs()
    assert count(system.notes) == 200
