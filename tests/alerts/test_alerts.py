"""What is told, and how often."""

import pytest

from mcp_backup.alerts.alert import RunFacts
from mcp_backup.errors import StoreFull, UnknownSource, WrongPassword
from mcp_backup.history_facts import Asker, Door, Outcome, Run, RunSource
from mcp_backup.settings_alerts import Event
from tests.alerts.conftest import Desk, backup, standing, told
from tests.alerts.receiver import Receiver


async def test_a_lasting_failure_is_told_once_and_its_end_once(desk: Desk, http: Receiver) -> None:
    for outcome in ("stored", "failed", "failed", "failed", "stored", "unchanged", "failed"):
        alerts = desk.alerts(told("webhook", http.url))  # each run in a process of its own
        await alerts.after_run(backup(outcome))
        await alerts.deliver()
        desk.clock.forward(hours=1)
    assert http.events == ["failure", "recovery", "failure"]
    assert [received.facts["since"][:13] for received in http.got] == [
        "2026-11-22T03",
        "2026-11-22T03",
        "2026-11-22T08",
    ]


async def test_two_processes_that_see_the_same_trouble_tell_it_once(
    desk: Desk, http: Receiver
) -> None:
    one, other = (desk.alerts(told("webhook", http.url)) for _ in range(2))
    for alerts in (one, other):
        await alerts.check(standing(30))
    await one.deliver()
    await other.deliver()
    for alerts in (one, other):
        await alerts.check(standing(1))
    await other.deliver()
    await one.deliver()
    assert http.events == ["overdue", "recovery"]


async def test_a_run_that_fails_as_a_whole_is_told_and_over_with_the_next_that_does_not(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    error = StoreFull("no space left in /backups", hint="Make room.")
    await alerts.after_run(RunFacts.of_error("create", error, scheduled=False))
    await alerts.after_run(backup())
    await alerts.deliver()
    assert http.events == ["failure", "recovery"]
    assert "no space left in /backups\nMake room." in http.got[0].facts["text"]


async def test_a_suspect_backup_is_told_and_over_with_a_good_one(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(backup(suspect="table notes: 3 rows, 2000 in the backup before"))
    await alerts.after_run(backup("failed"))  # which says nothing about the copy there is
    await alerts.after_run(backup())
    await alerts.deliver()
    assert http.events == ["suspect", "failure", "recovery", "recovery"]
    assert "3 rows" in http.got[0].facts["message"]


async def test_a_repository_that_cannot_be_opened_is_told(desk: Desk, http: Receiver) -> None:
    alerts = desk.alerts(told("webhook", http.url), told("healthchecks", http.url, name="pings"))
    for _ in range(3):
        await alerts.unopened(WrongPassword("/backups", 1))
    await alerts.deliver()
    assert sorted(http.paths) == ["", "/fail"]
    await alerts.opened()
    await alerts.deliver()
    assert sorted(http.paths) == ["", "", "/fail"]


@pytest.mark.parametrize(
    ("run", "events"),
    [
        (RunFacts("create", "cancelled", scheduled=True), []),
        (RunFacts("restore", "failed", scheduled=False), []),
        (RunFacts.of_error("create", UnknownSource("x", []), scheduled=False), []),
        (RunFacts.of_error("create", UnknownSource("x", []), scheduled=True), ["failure"]),
        (RunFacts("check", "findings", scheduled=False, message="a pack is gone"), ["failure"]),
    ],
)
async def test_only_what_nobody_is_waiting_for_is_told(
    desk: Desk, http: Receiver, run: RunFacts, events: list[str]
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(run)
    await alerts.deliver()
    assert http.events == events


async def test_a_receiver_hears_only_of_what_it_asked_for(desk: Desk, http: Receiver) -> None:
    alerts = desk.alerts(told("webhook", http.url, on=(Event.OVERDUE, Event.RECOVERY)))
    await alerts.after_run(backup("failed"))
    await alerts.after_run(backup())
    await alerts.check(standing(30))
    await alerts.check(standing(1))
    await alerts.deliver()
    assert http.events == ["overdue", "recovery"]


async def test_what_is_wrong_with_a_source_that_is_gone_from_the_settings_is_forgotten(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", http.url, on=(Event.RECOVERY,)))
    run = backup("failed")
    (source,) = run.sources
    gone = RunFacts(
        "create", "partial", True, sources=(source.__class__("config", "old", "failed"),)
    )
    await alerts.after_run(run)
    await alerts.after_run(gone)
    await alerts.check(standing(1))
    assert [each.key for each in await alerts.conditions()] == ["databases/notes failed"]
    assert await alerts.pending() == []


async def test_a_missed_run_is_told_once_and_nothing_is_late_before_the_first_try(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.check(standing(None, tried=0))
    await alerts.check(standing(1, missed=("daily 2026-11-22",)))
    await alerts.check(standing(2, missed=("daily 2026-11-22",)))
    await alerts.check(standing(None))
    await alerts.deliver()
    assert [(each.facts["event"], each.facts["message"]) for each in http.got] == [
        ("overdue", "not made when it was due: daily 2026-11-22"),
        ("overdue", "it has never been backed up"),
        ("recovery", "over: not made when it was due: daily 2026-11-22"),
    ]


def recorded(number: int, desk: Desk, outcome: Outcome, door: Door = "schedule") -> Run:
    """A backup as the history has it; the process that ran it may be any."""
    ended = None if outcome == "running" else desk.clock()
    worked = outcome in ("completed", "running")
    source = RunSource("databases", "notes", "stored" if worked else "failed")
    return Run(
        id=number,
        verb="create",
        subject="full",
        asker=Asker(door),
        begun=desk.clock(),
        ended=ended,
        outcome=outcome,
        backup_id="backup_20261122_020000" if worked else "",
        read=0,
        added=0,
        stored=0,
        duration=1.0,
        error_code="" if worked else "x",
        message="",
        sources=(source,) if worked else (),
    )


async def test_runs_on_record_are_told_of_once_whoever_ran_them_and_whoever_looks(
    desk: Desk, http: Receiver
) -> None:
    receivers = (
        told("webhook", f"{http.url}/hook"),
        told("healthchecks", f"{http.url}/ping"),
    )
    one, other = desk.alerts(*receivers), desk.alerts(*receivers)
    runs: list[Run] = []
    endings: list[Outcome] = ["running", "completed", "interrupted", "completed"]
    for outcome in endings:
        runs.insert(0, recorded(len(runs) + 1, desk, outcome))
        for alerts in (one, other):
            await alerts.follow(runs)
            await alerts.deliver()
        desk.clock.forward(minutes=5)
    assert [path for path in http.paths if path.startswith("/ping")] == [
        "/ping/start",
        "/ping",
        "/ping/fail",
        "/ping",
    ]
    hooked = [each.facts for each in http.got if each.path.endswith("/hook")]
    assert [facts["event"] for facts in hooked] == ["failure", "recovery"]
    assert "died" in hooked[0]["message"]


async def test_a_new_outbox_does_not_tell_of_old_runs(desk: Desk, http: Receiver) -> None:
    runs = [recorded(1, desk, "failed")]
    desk.clock.forward(days=2)
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.follow(runs)
    await alerts.deliver()
    assert http.events == []
