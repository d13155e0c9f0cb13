"""The schedule in one process, by a clock that the tests set."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from mcp_backup.cron import Cron
from mcp_backup.engine import Engine
from mcp_backup.history import Run
from mcp_backup.schedule import Timing, run_schedule
from mcp_backup.slots import Schedule
from mcp_backup.verbs import BackupType, CreateRequest
from tests.system import System, make_system

QUICK = Timing(pulse=0.02)
DAY = timedelta(days=1)
PATIENCE = 30.0  # seconds; only a failure waits that long


class Clock:
    """A clock that stands still unless it is set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


def schedule(name: str, cron: str) -> Schedule:
    return Schedule(name, Cron.parse(cron), CreateRequest(BackupType.DATABASE, ("notes",)))


DAILY, WEEKLY = schedule("daily", "0 2 * * *"), schedule("weekly", "0 3 * * sun")


@pytest.fixture
async def system(tmp_path: Path) -> System:
    made = await make_system(tmp_path / "system")
    utc = structs.replace(made.settings.schedule, timezone="UTC")
    return System(made.root, structs.replace(made.settings, schedule=utc))


@asynccontextmanager
async def scheduled(
    engine: Engine, *schedules: Schedule, timing: Timing = QUICK
) -> AsyncIterator[anyio.CancelScope]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_schedule, engine, schedules or None, timing)
        with anyio.fail_after(PATIENCE):
            while not (engine.state / "schedule.since").exists():  # noqa: ASYNC110 - another process, or the disk
                await anyio.sleep(0.01)
        yield tasks.cancel_scope
        tasks.cancel_scope.cancel()


async def until(
    engine: Engine, enough: Callable[[Sequence[Run]], bool], verb: str = "create"
) -> Sequence[Run]:
    with anyio.fail_after(PATIENCE):
        while not enough(runs := await engine.history.runs(verb=verb)):  # noqa: ASYNC110 - another process, or the disk
            await anyio.sleep(0.01)
    return runs


def slots(runs: Sequence[Run]) -> list[str]:
    return [run.asker.slot for run in reversed(runs) if run.outcome != "running"]


def ended(count: int) -> Callable[[Sequence[Run]], bool]:
    return lambda runs: len(slots(runs)) >= count


async def test_what_was_missed_is_caught_up_once_and_only_the_newest_of_it(system: System) -> None:
    clock = Clock()
    async with system.engine(clock) as engine:
        async with scheduled(engine, DAILY):
            clock.time += DAY
            assert slots(await until(engine, ended(1))) == ["daily 2026-11-21T02:00"]
            clock.time += 5 * DAY  # asleep
            assert slots(await until(engine, ended(2)))[1:] == ["daily 2026-11-26T02:00"]
        clock.time += 2 * DAY  # not running at all
        async with scheduled(engine, DAILY):
            assert slots(await until(engine, ended(3)))[2:] == ["daily 2026-11-28T02:00"]
            clock.time -= 3 * DAY  # set back: nothing is run again
            clock.time += 4 * DAY
            assert slots(await until(engine, ended(4)))[3:] == ["daily 2026-11-29T02:00"]


async def test_a_new_schedule_makes_up_for_nothing_before_it(system: System) -> None:
    clock = Clock()
    async with system.engine(clock) as engine, scheduled(engine, DAILY, WEEKLY):
        clock.time += timedelta(hours=14)
        assert slots(await until(engine, ended(1))) == ["daily 2026-11-21T02:00"]
        clock.time += DAY + timedelta(hours=2)
        found = slots(await until(engine, ended(3)))
        assert found[1:] == ["daily 2026-11-22T02:00", "weekly 2026-11-22T03:00"]


async def test_a_slot_that_failed_is_on_record_and_the_next_one_runs(system: System) -> None:
    clock = Clock()
    system.notes.rename(system.root / "away.db")
    async with system.engine(clock) as engine, scheduled(engine, DAILY):
        clock.time += DAY
        (failed,) = await until(engine, ended(1))
        assert (failed.outcome, failed.error_code) == ("failed", "nothing-backed-up")
        (system.root / "away.db").rename(system.notes)
        clock.time += DAY
        (made, _) = await until(engine, ended(2))
        assert (made.outcome, made.asker.door) == ("completed", "schedule")
        assert (made.asker.slot, made.asker.tool) == ("daily 2026-11-22T02:00", "daily")


async def test_a_run_that_failed_is_tried_again_later_and_succeeds_once(system: System) -> None:
    clock = Clock()
    system.notes.rename(system.root / "away.db")
    async with system.engine(clock) as engine:
        async with scheduled(engine, DAILY):
            clock.time += DAY
            await until(engine, ended(1))
            (system.root / "away.db").rename(system.notes)
            clock.time += timedelta(minutes=5)
            runs = await until(engine, ended(2))
            assert [run.outcome for run in runs] == ["completed", "failed"]
            assert {run.asker.slot for run in runs} == {"daily 2026-11-21T02:00"}
        async with scheduled(engine, DAILY):  # and in no later process
            clock.time += timedelta(hours=14)
            await until(engine, ended(3))
        assert slots(await engine.history.runs(verb="create"))[2:] == ["daily 2026-11-22T02:00"]


async def test_a_backup_under_way_is_finished_when_the_schedule_stops(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mcp_backup.schedule")
    clock = Clock()
    async with system.engine(clock) as engine:
        async with scheduled(engine, DAILY, timing=Timing(QUICK.pulse, drain=PATIENCE)):
            clock.time += DAY
            await until(engine, lambda runs: bool(runs))
        (run,) = await engine.history.runs(verb="create")
        assert run.outcome == "completed"
        assert (await engine.backups()).total == 1
    assert "finished before stopping: slot=daily 2026-11-21T02:00" in caplog.text


async def test_a_backup_that_takes_too_long_is_stopped_whole_and_made_up_for(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with system.engine(clock) as engine:
        async with scheduled(engine, DAILY, timing=Timing(QUICK.pulse, drain=0)):
            clock.time += DAY
            await until(engine, lambda runs: bool(runs))
        (run,) = await engine.history.runs(verb="create")
        assert run.outcome == "cancelled"
        assert (await engine.backups()).total == 0
        async with scheduled(engine, DAILY):
            (again, _) = await until(engine, ended(2))
        assert (again.asker.slot, again.outcome) == (run.asker.slot, "completed")
    assert "stopped while under way, nothing of it is kept" in caplog.text


async def test_the_daily_backup_applies_retention(system: System) -> None:
    clock = Clock()
    async with system.engine(clock) as engine, scheduled(engine):
        for _ in range(2):
            clock.time += 20 * 7 * DAY
            runs = await until(engine, lambda runs: runs != [], "forget")
        assert runs[0].asker.door == "schedule"


async def test_a_history_that_cannot_be_used_keeps_no_backup_from_being_made(
    system: System,
) -> None:
    clock = Clock()
    async with system.engine(clock) as engine:
        (engine.state / "history.db").unlink(missing_ok=True)
        (engine.state / "history.db").mkdir(parents=True)
        async with scheduled(engine, DAILY):
            clock.time += DAY
            with anyio.fail_after(PATIENCE):
                while (await engine.backups()).total == 0:  # noqa: ASYNC110 - another process, or the disk
                    await anyio.sleep(0.01)
