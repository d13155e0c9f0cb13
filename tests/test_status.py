"""The status: its word, and the reasons for it."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

from mcp_backup.alerts.alerts import Alerts
from mcp_backup.engine import Engine
from mcp_backup.errors import NothingBackedUp, RepositoryMissing, UnknownBackup
from mcp_backup.history import Asker, RunSource, Totals, asked_by
from mcp_backup.repository.locks import locked
from mcp_backup.secret import Secret
from mcp_backup.server.status_reply import StatusReply, status_summary
from mcp_backup.settings_alerts import AlertSettings
from mcp_backup.slots import schedules_of, slots
from mcp_backup.status import ages, statistics, status
from mcp_backup.status_report import StatusReport
from mcp_backup.terminal_status import stood
from mcp_backup.verbs import BackupType, CreateRequest, Level
from tests.system import System, make_system

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUICK = CreateRequest(BackupType.INCREMENTAL, verify=False)


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **by: float) -> None:
        self.time += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def system(tmp_path: Path) -> System:
    made = await make_system(tmp_path / "system", rows=5)
    settings = made.settings
    quiet = structs.replace(settings, schedule=structs.replace(settings.schedule, enabled=False))
    return System(made.root, quiet)


@pytest.fixture
async def engine(system: System, clock: Clock) -> AsyncIterator[Engine]:
    async with system.engine(clock) as engine:
        yield engine


async def told(engine: Engine) -> StatusReport:
    return await status(engine, around=False)


async def test_before_the_first_backup_it_is_at_risk(engine: Engine) -> None:
    report = await told(engine)
    assert report.health == "at risk"
    assert report.reasons == ("nothing has been backed up yet; run `mcp-backup create`",)
    assert [(each.last_success, each.overdue) for each in report.sources] == [(None, True)] * 3


async def test_with_young_copies_of_every_source_it_is_healthy(
    engine: Engine, clock: Clock
) -> None:
    await engine.create(QUICK)
    clock.forward(hours=5)

    report = await told(engine)

    assert (report.health, report.reasons) == ("healthy", ())
    assert [(e.source, e.last_success, e.rpo_hours, e.overdue) for e in report.sources] == [
        ("notes", NOON, 5.0, False),
        ("tasks", NOON, 5.0, False),
        ("project", NOON, 5.0, False),
    ]
    assert (report.backups, report.newest, report.surplus) == (1, NOON, 0)
    assert report.statistics.successes == 1
    assert report.statistics.compression > 1


async def test_a_source_older_than_its_objective_makes_it_failing(
    engine: Engine, clock: Clock
) -> None:
    await engine.create(QUICK)
    clock.forward(hours=23)
    await engine.create(CreateRequest(BackupType.CONFIG, verify=False))
    clock.forward(hours=2)

    report = await told(engine)

    assert report.health == "failing"
    assert report.reasons == (
        "the newest copy of databases/notes is 25.0 hours old, and 24 are allowed",
        "the newest copy of databases/tasks is 25.0 hours old, and 24 are allowed",
    )
    assert [each.overdue for each in report.sources] == [True, True, False]


async def test_the_worst_gap_between_copies_is_measured(engine: Engine, clock: Clock) -> None:
    for hours in (30, 10, 5):
        await engine.create(QUICK)
        clock.forward(hours=hours)
    (notes, *_) = (await told(engine)).sources
    assert (notes.rpo_hours, notes.worst_rpo_hours) == (5.0, 30.0)


async def test_a_source_that_failed_last_puts_it_at_risk_while_its_copy_is_young(
    system: System, engine: Engine
) -> None:
    await engine.create(QUICK)
    system.tasks.unlink()
    await engine.create(QUICK)

    report = await told(engine)

    assert report.health == "at risk"
    assert "databases/tasks failed" in report.reasons[0]
    assert [bool(each.failure) for each in report.sources] == [False, True, False]


async def test_a_source_that_was_never_stored_makes_it_failing(
    system: System, engine: Engine
) -> None:
    system.tasks.unlink()
    await engine.create(QUICK)
    report = await told(engine)
    assert report.health == "failing"
    assert report.reasons[0] == "databases/tasks has never been backed up"


async def test_a_failed_backup_makes_it_failing_until_one_succeeds(
    system: System, engine: Engine
) -> None:
    await engine.create(QUICK)
    moved = system.notes.rename(system.root / "moved.db")
    with pytest.raises(NothingBackedUp):
        await engine.create(CreateRequest(BackupType.DATABASE, ("notes",)))
    assert (await told(engine)).health == "failing"

    moved.rename(system.notes)
    await engine.create(QUICK)
    assert (await told(engine)).health == "healthy"


async def test_damage_found_makes_it_failing_and_a_mistyped_id_does_not(engine: Engine) -> None:
    await engine.create(QUICK)
    with pytest.raises(UnknownBackup):
        await engine.verify("backup_20000101_000000", Level.STRUCTURE)
    assert (await told(engine)).health == "healthy"

    await engine.history.end(await engine.history.begin("check"), "findings")
    report = await told(engine)
    assert report.health == "failing"
    assert report.reasons == ("the last check found damage; run `mcp-backup check` to see it",)

    await engine.check()
    assert (await told(engine)).health == "healthy"


async def test_a_copy_that_is_no_longer_in_the_repository_does_not_count(
    engine: Engine, clock: Clock
) -> None:
    await engine.create(QUICK)
    clock.forward(hours=20)
    last = await engine.create(QUICK)
    backup = await engine.catalog.find(last.backup_id)
    async with locked(engine.repository, exclusive=True):
        await engine.repository.forget(backup.id)
    clock.forward(hours=1)

    report = await told(engine)

    assert report.health == "at risk"
    assert "is no longer in the repository" in report.reasons[0]
    assert [each.rpo_hours for each in report.sources] == [21.0] * 3


async def test_a_snapshot_that_cannot_be_read_makes_it_failing(
    system: System, engine: Engine
) -> None:
    await engine.create(QUICK)
    last = await engine.create(QUICK)
    file = system.repository / "snapshots" / last.snapshot_id
    file.chmod(0o600)
    file.write_bytes(os.urandom(200))
    async with system.engine() as again:
        report = await told(again)
    assert report.health == "failing"
    assert report.reasons[0].startswith(f"snapshots/{last.snapshot_id[:8]} cannot be read")


async def test_without_a_history_the_repository_tells_the_age_of_copies(
    engine: Engine, clock: Clock
) -> None:
    await engine.create(QUICK)
    path = engine.state / "history.db"
    path.unlink()
    path.mkdir()
    clock.forward(hours=2)

    report = await told(engine)

    assert report.health == "at risk"
    assert "the history at" in report.reasons[0]
    assert [each.rpo_hours for each in report.sources] == [2.0] * 3


async def test_a_damaged_history_is_said_for_a_week(system: System) -> None:
    async with system.engine() as engine:
        await engine.create(QUICK)
        (engine.state / "history.db").write_bytes(os.urandom(8192))
    async with system.engine() as engine:
        report = await told(engine)
    assert report.health == "at risk"
    assert "the history was damaged, is kept as history.db.damaged-" in report.reasons[0]
    assert [each.overdue for each in report.sources] == [False] * 3


async def test_a_slot_that_passed_without_a_run_is_said(tmp_path: Path, clock: Clock) -> None:
    system = await make_system(tmp_path / "system", rows=5)
    async with system.engine(clock) as engine:
        await engine.create(QUICK)
        clock.forward(hours=20)
        report = await told(engine)
        assert report.health == "at risk"
        assert any("daily" in each for each in report.missed)
        assert all("was not made" in each for each in report.reasons)
        assert {run.schedule for run in report.next_runs} == {"daily", "weekly", "drill"}

        for slot in slots(schedules_of(system.settings), None, NOON, clock.time):
            with asked_by(Asker("schedule", slot=slot.key)):
                await engine.create(QUICK)
        assert (await told(engine)).missed == ()


async def test_a_clock_that_ran_ahead_is_said(engine: Engine, clock: Clock) -> None:
    clock.forward(days=30)
    await engine.create(QUICK)
    clock.forward(days=-30)
    report = await told(engine)
    assert report.health == "at risk"
    assert "from the future" in report.reasons[0]


async def test_databases_that_no_source_covers_are_named(system: System) -> None:
    other = system.root / "forgotten.db"
    other.write_bytes(system.notes.read_bytes())
    settings = structs.replace(system.settings, file=system.root / "mcp-backup.toml")
    async with System(system.root, settings).engine() as engine:
        report = await status(engine)
    assert f"database {other}" in report.unprotected
    assert f"database {system.notes}" not in report.unprotected


def test_ages_are_counted_in_their_bands() -> None:
    days = [0.5, 1, 6.9, 7, 29, 30, 89, 90, 900]
    assert ages([timedelta(days=each) for each in days]) == {
        "< 1 day": 1,
        "1-7 days": 2,
        "1-4 weeks": 2,
        "1-3 months": 2,
        "> 3 months": 2,
    }


def test_statistics_of_nothing_divide_by_nothing() -> None:
    assert statistics(Totals()).compression == 0.0
    assert statistics(Totals(successes=2, added=30, stored=10, seconds=5.0)).compression == 3.0


async def test_what_is_not_a_backup_does_not_make_a_source_young(
    engine: Engine, clock: Clock
) -> None:
    await engine.create(QUICK)
    clock.forward(hours=30)
    restored = RunSource("databases", "notes", "stored")
    await engine.history.end(await engine.history.begin("restore"), "completed", sources=[restored])
    assert (await told(engine)).sources[0].rpo_hours == 30.0


async def test_an_alert_that_could_not_be_delivered_puts_it_at_risk_and_is_named(
    system: System, clock: Clock
) -> None:
    nobody = AlertSettings(kind="webhook", url=Secret("http://127.0.0.1:1/t0ken"), name="phone")
    settings = structs.replace(system.settings, alerts=(nobody,))
    alerts = Alerts(settings, clock, {}, host="here")
    async with System(system.root, settings).engine(clock) as engine:
        await engine.create(QUICK)
        assert (await told(engine)).health == "healthy"
        await alerts.unopened(RepositoryMissing("somewhere"))
        assert (await told(engine)).undelivered == ()  # it was not tried yet
        await alerts.deliver()
        report = await told(engine)
    assert report.undelivered == ("phone: Failed: the repository on here (no connection)",)
    assert report.health == "at risk"
    assert report.reasons == (f"an alert was not delivered: {report.undelivered[0]}",)
    reply = StatusReply.of(report)
    for lines in (status_summary(reply), "\n".join(stood(report))):
        assert f"ot delivered: {report.undelivered[0]}" in lines
        assert "t0ken" not in lines
