"""Drills of a whole system: real restores into scratch, on record, and nothing else touched."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.errors import UnknownSource
from mcp_backup.history import Asker, asked_by
from mcp_backup.proof.drill import drill, ledger_of
from mcp_backup.proof.objectives import recovery
from mcp_backup.schedule import Timing, run_schedule
from mcp_backup.settings_drills import CheckSettings, DrillSettings, RecoverySettings
from mcp_backup.status import status
from mcp_backup.verbs import CreateRequest
from mcp_backup.workers import gently, worker
from tests.proof.conftest import outcomes
from tests.system import System

EVERYTHING = {("notes", pick) for pick in ("newest", "older")}
EVERYTHING |= {("tasks", pick) for pick in ("newest", "older")}
EVERYTHING |= {("project", pick) for pick in ("newest", "older")}


def contents(root: Path) -> dict[str, str]:
    """Every file's digest, but for what the program keeps for itself."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in ("state",)
    }


def asking(system: System, *checks: CheckSettings) -> System:
    """The system, with checks on its first database."""
    notes, *others = system.settings.databases
    asked = structs.replace(notes, checks=checks)
    return System(system.root, structs.replace(system.settings, databases=(asked, *others)))


async def test_the_newest_and_an_older_copy_of_every_source_are_proven(system: System) -> None:
    before = contents(system.root)
    async with system.engine() as engine:
        report = await drill(engine)
        newest, older = (entry.backup_id for entry in (await engine.backups()).entries)
    assert report.outcome == "proven"
    assert outcomes(report) == dict.fromkeys(EVERYTHING, "proven")
    assert {each.backup_id for each in report.results if each.pick == "newest"} == {newest}
    assert {each.backup_id for each in report.results if each.pick == "older"} == {older}
    for each in report.results:
        assert [phase.name for phase in each.phases] == ["restore", "examine", "checks", "place"]
        assert each.size > 0
    assert [phase.name for phase in report.phases] == ["open", "find"]
    assert contents(system.root) == before
    assert list(system.settings.scratch.iterdir()) == []


async def test_a_drill_is_on_record_with_who_asked_and_in_the_evidence(system: System) -> None:
    async with system.engine() as engine:
        with asked_by(Asker("mcp", "an-agent", "1.0", "run_drill")):
            report = await drill(engine, DrillRequest(("notes",)))
        (run,) = await engine.history.runs(verb="drill")
        (record,) = (await ledger_of(engine).read()).records
    assert (run.outcome, run.asker.name) == ("completed", "an-agent")
    assert run.message == f"evidence 1, seal {report.seal[:16]}"
    assert [(each.name, each.outcome) for each in run.sources] == [("notes", "proven")] * 2
    assert record.drill == report


async def test_a_scenario_takes_what_that_disaster_takes(system: System) -> None:
    async with system.engine() as engine:
        corrupt = await drill(engine, DrillRequest(scenario="database-corruption"))
        whole = await drill(engine, DrillRequest(scenario="complete-failure"))
        lost = await drill(engine, DrillRequest(("tasks",), "data-loss"))
    assert set(outcomes(corrupt)) == {each for each in EVERYTHING if each[0] != "project"}
    assert set(outcomes(whole)) == {each for each in EVERYTHING if each[1] == "newest"}
    assert set(outcomes(lost)) == {("tasks", "older")}


async def test_sources_come_in_the_order_in_which_they_start(system: System) -> None:
    order = RecoverySettings(start_order=("project", "tasks"))
    ordered = System(system.root, structs.replace(system.settings, recovery=order))
    async with ordered.engine() as engine:
        report = await drill(engine, DrillRequest(scenario="single-server"))
        measured = await recovery(engine)
    assert [each.source for each in report.results] == ["project", "tasks", "notes"]
    assert [each.source for each in measured.sources] == ["project", "tasks", "notes"]
    times = [each.seconds or 0.0 for each in measured.sources]
    assert measured.seconds == pytest.approx(sum(times) + measured.opening_seconds, abs=0.002)


async def test_the_owners_questions_are_asked_and_their_answers_are_not_told(
    system: System,
) -> None:
    secret = "SELECT body FROM notes WHERE id = 2"  # noqa: S105
    asked = asking(
        system,
        CheckSettings(query="SELECT count(*) FROM notes", expect=50),
        CheckSettings(
            query="SELECT count(*) FROM search WHERE search MATCH 'words'", expect=">=50"
        ),
        CheckSettings(query="SELECT count(*) FROM notes", expect="> 50"),
        CheckSettings(query=secret, expect="another"),
        CheckSettings(query="DELETE FROM notes", expect=0),
        CheckSettings(query=f"ATTACH '{system.tasks}' AS live", expect=0),
        CheckSettings(
            query="WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT count(*) FROM n",
            expect=0,
        ),
        CheckSettings(query="SELECT load_extension('x')", expect=0),
    )
    quick = structs.replace(asked.settings, drills=DrillSettings(check_seconds=0.5))
    async with System(system.root, quick).engine() as engine:
        report = await drill(engine, DrillRequest(("notes",), "single-server"))
    (result,) = report.results
    assert result.checks == 2
    told = {each.subject: each.message for each in result.findings}
    assert told["check 3"] == "expected > 50, got 50"
    assert told["check 4"] == "expected another, got something else"
    assert "does more than read" in told["check 5"]
    assert "does more than read" in told["check 6"]
    assert "longer than 0.5 seconds" in told["check 7"]
    assert "check 8" in told
    assert "note number" not in str(report)


async def test_what_the_time_budget_ends_is_told_as_skipped(system: System) -> None:
    async with system.engine() as engine:
        report = await drill(engine, DrillRequest(minutes=0))
        measured = await recovery(engine)
    assert report.outcome == "incomplete"
    assert {each.reason for each in report.results} == {"the time budget ended first"}
    assert measured.seconds is None
    assert list(system.settings.scratch.iterdir()) == []


async def test_a_cancelled_drill_leaves_neither_record_nor_scratch(system: System) -> None:
    async with system.engine() as engine:
        with anyio.move_on_after(0.05):
            await drill(engine)
        assert (await ledger_of(engine).read()).records == ()
    assert list(system.settings.scratch.iterdir()) == []


async def test_an_unknown_source_is_refused(system: System) -> None:
    async with system.engine() as engine:
        with pytest.raises(UnknownSource):
            await drill(engine, DrillRequest(("nots",)))


async def test_workers_of_a_drill_yield_to_others() -> None:
    with gently(7):
        async with worker("mcp_backup.sources.worker", "a test") as child:
            assert os.getpriority(os.PRIO_PROCESS, child.pid) == 7


async def test_a_proven_copy_is_kept_as_the_latest_proven_and_a_failed_one_is_suspect(
    system: System,
) -> None:
    async with system.engine() as engine:
        quick = CreateRequest(verify=False)
        await engine.create(quick)
        before = await engine.judging.verdicts()
        newest = (await engine.backups()).entries[0].snapshot_id
        assert "latest proven" not in before[newest].reasons
        await drill(engine, DrillRequest(scenario="single-server"))
        assert "latest proven" in (await engine.judging.verdicts())[newest].reasons
    wrong = asking(system, CheckSettings(query="SELECT count(*) FROM notes", expect=1))
    async with wrong.engine() as engine:
        await drill(engine, DrillRequest(("notes",), "single-server"))
        judged = await engine.judging.verdicts()
    assert any("suspect" in reason for reason in judged[newest].reasons)
    proven = [one for one in judged.values() if any("latest proven" in r for r in one.reasons)]
    assert len(proven) == 2  # notes is now proven by the one before


async def test_the_status_tells_what_recovery_takes_and_fails_with_a_drill(
    system: System,
) -> None:
    async with system.engine() as engine:
        assert (await status(engine, around=False)).recovery_seconds is None
        await drill(engine)
        report = await status(engine, around=False)
        assert report.health == "healthy"
        assert report.recovery_seconds is not None
        assert all(each.recovery_seconds for each in report.sources)
    slow = structs.replace(system.settings.objectives, rto_hours=1e-6)
    hurried = System(system.root, structs.replace(system.settings, objectives=slow))
    async with hurried.engine() as engine:
        report = await status(engine, around=False)
        assert report.health == "failing"
        assert "getting everything back takes" in report.reasons[0]


async def test_the_schedule_runs_a_drill_and_then_no_other_for_its_slot(system: System) -> None:
    moment = datetime.now(UTC)
    schedule = structs.replace(
        system.settings.schedule,
        timezone="UTC",
        daily=None,
        weekly=None,
        drill=f"{moment:%A %H:%M}".lower(),
    )
    planned = System(system.root, structs.replace(system.settings, schedule=schedule))
    async with planned.engine() as engine:
        (engine.state / "schedule.since").write_text("2026-01-01T00:00:00+00:00")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_schedule, engine, None, Timing(pulse=0.02))
            with anyio.fail_after(60):
                while not (await ledger_of(engine).read()).records:  # noqa: ASYNC110 - the disk
                    await anyio.sleep(0.05)
            await anyio.sleep(0.2)
            tasks.cancel_scope.cancel()
        (run,) = await engine.history.runs(verb="drill")
        assert await engine.history.runs(verb="forget") == []
    assert (run.asker.door, run.outcome) == ("schedule", "completed")
