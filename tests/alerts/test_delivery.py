"""Each kind of receiver, and receivers that are down, slow or wrong."""

import json
import shlex
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import anyio
import pytest

from mcp_backup.alerts.alert import RunFacts
from mcp_backup.alerts.alerts import outbox_of
from mcp_backup.secret import Secret
from mcp_backup.settings_alerts import AlertSettings, Event
from tests.alerts.conftest import QUICK, USUAL, Desk, backup, standing, told
from tests.alerts.receiver import Receiver

TOKEN = "to-be-let-in"  # noqa: S105


async def test_a_webhook_gets_the_facts_as_json(desk: Desk, http: Receiver) -> None:
    alerts = desk.alerts(told("webhook", http.url, token=TOKEN))
    await alerts.after_run(backup("failed"))
    await alerts.deliver()
    (received,) = http.got
    assert received.headers["Authorization"] == f"Bearer {TOKEN}"
    assert received.headers["Content-Type"] == "application/json"
    assert received.facts == {
        "id": received.facts["id"],
        "event": "failure",
        "subject": "notes (databases)",
        "message": "source 'notes': /n.db does not exist",
        "hint": "",
        "host": "host",
        "time": "2026-11-22T02:00:00+00:00",
        "since": "2026-11-22T02:00:00+00:00",
        "title": "Failed: notes (databases) on host",
        "text": "Failed: notes (databases) on host\nsource 'notes': /n.db does not exist",
    }


async def test_ntfy_gets_a_title_a_priority_and_the_text(desk: Desk, http: Receiver) -> None:
    alerts = desk.alerts(told("ntfy", http.url))
    alerts._host = "hôte"
    await alerts.after_run(backup("failed"))
    await alerts.after_run(backup())
    await alerts.deliver()
    failure, recovery = http.got
    assert failure.headers["Title"].startswith("=?UTF-8?B?")
    assert failure.headers["Priority"] == "high"
    assert failure.body == b"source 'notes': /n.db does not exist"
    assert (recovery.headers["Priority"], recovery.headers["Tags"]) == (
        "default",
        "white_check_mark",
    )


async def test_scheduled_backups_ping_start_and_then_success_or_fail(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("healthchecks", f"{http.url}?create=1"))
    error = RunFacts("create", "failed", scheduled=True, message="the disk is full")
    for run in (backup(), backup("failed"), error, backup(suspect="shrunken")):
        await alerts.started(scheduled=True)
        await alerts.deliver()
        await alerts.after_run(run)
        await alerts.deliver()
    ends = ["", "/fail", "/fail", "/fail"]
    assert http.paths == [f"{p}?create=1" for end in ends for p in ("/start", end)]
    assert b"the disk is full" in http.got[5].body


async def test_a_backup_that_somebody_asks_for_pings_nothing(desk: Desk, http: Receiver) -> None:
    alerts = desk.alerts(told("healthchecks", http.url))
    await alerts.started(scheduled=False)
    await alerts.after_run(backup(scheduled=False))
    await alerts.deliver()
    assert http.got == []


async def test_a_ping_to_a_check_that_does_not_exist_is_not_taken_for_delivered(
    desk: Desk, http: Receiver
) -> None:
    http.answer = b"OK (not found)"
    alerts = desk.alerts(told("healthchecks", http.url))
    await alerts.after_run(backup())
    await alerts.deliver()
    (pending,) = await alerts.pending()
    assert "knows no such check" in pending.trouble


async def test_of_pings_that_could_not_be_delivered_only_the_last_is(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("healthchecks", http.url))
    http.status = 503
    for run in (backup(), backup("failed"), backup()):
        await alerts.started(scheduled=True)
        await alerts.after_run(run)
    await alerts.deliver()
    http.status = 200
    desk.clock.forward(minutes=1)
    await alerts.deliver()
    assert http.paths == ["", ""]


async def test_a_receiver_that_was_down_gets_each_alert_once_and_in_order(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", "http://127.0.0.1:1/nobody-listens"))
    for outcome in ("failed", "stored"):
        await alerts.after_run(backup(outcome))
        await alerts.deliver()
    waiting = await alerts.pending()
    assert [(each.event, each.tries, each.trouble) for each in waiting] == [
        (Event.FAILURE, 1, "no connection"),
        (Event.RECOVERY, 0, ""),
    ]
    alerts = desk.alerts(told("webhook", http.url))  # after a restart, the address corrected
    await alerts.deliver()
    assert http.events == []  # not due yet
    desk.clock.forward(seconds=31)
    for _ in range(3):
        await alerts.deliver()
    assert http.events == ["failure", "recovery"]
    assert await alerts.pending() == []


async def test_tries_grow_rarer_and_end_after_a_week(desk: Desk, http: Receiver) -> None:
    http.status = 500
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(backup("failed"))
    waits = []
    for _ in range(8):
        await alerts.deliver()
        (pending,) = await alerts.pending()
        waits.append((pending.next_try - desk.clock()).total_seconds())
        desk.clock.time = pending.next_try
    assert waits == [30, 60, 120, 300, 900, 3600, 3600, 3600]
    assert pending.trouble == "answered 500"
    desk.clock.forward(days=7)
    await alerts.deliver()
    assert await alerts.pending() == []
    assert len(http.got) == 8


async def test_a_receiver_that_hangs_is_left_in_time_and_keeps_nobody_waiting(
    desk: Desk, http: Receiver
) -> None:
    http.hold.clear()
    alerts = desk.alerts(told("webhook", http.url), patience=QUICK)
    began = monotonic()
    await alerts.after_run(backup("failed"))
    assert monotonic() - began < 0.3
    await alerts.deliver()
    assert 0.3 < monotonic() - began < 5
    (pending,) = await alerts.pending()
    assert pending.trouble == "no answer within 0.4 seconds"


async def test_an_answer_without_end_is_left_in_time(desk: Desk, http: Receiver) -> None:
    http.answer = b"x" * 50_000_000
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(backup("failed"))
    await alerts.deliver()
    assert await alerts.pending() == []


async def test_a_redirect_is_not_followed(desk: Desk, http: Receiver) -> None:
    http.status, http.headers = 307, {"Location": http.url}
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(backup("failed"))
    await alerts.deliver()
    assert len(http.got) == 1
    (pending,) = await alerts.pending()
    assert pending.trouble == "answered 307: it has moved; write its new address"


async def test_one_refused_alert_does_not_hold_up_the_others(desk: Desk, http: Receiver) -> None:
    http.status = 400
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(backup("failed"))
    await alerts.deliver()
    http.status = 200
    await alerts.check(standing(30))
    await alerts.deliver()
    assert http.events == ["failure", "overdue"]


async def test_a_cancelled_try_is_made_again_at_once_by_another(desk: Desk, http: Receiver) -> None:
    http.hold.clear()
    alerts = desk.alerts(told("webhook", http.url))
    await alerts.after_run(backup("failed"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alerts.deliver)
        while not http.got:  # noqa: ASYNC110 - another thread's
            await anyio.sleep(0.01)
        await desk.alerts(told("webhook", http.url)).deliver()  # finds it taken
        assert len(http.got) == 1
        tasks.cancel_scope.cancel()
    http.hold.set()
    await desk.alerts(told("webhook", http.url)).deliver()
    assert [received.facts["id"] for received in http.got] == [http.got[0].facts["id"]] * 2


async def test_the_delivering_task_sends_what_is_queued_as_it_comes(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alerts.keep_delivering)
        with anyio.fail_after(5):
            for number, outcome in enumerate(("failed", "stored"), 1):
                await alerts.after_run(backup(outcome))
                while len(http.got) < number:  # noqa: ASYNC110 - another thread's
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert http.events == ["failure", "recovery"]


def command(line: str) -> AlertSettings:
    return AlertSettings(kind="command", command=Secret(line))


def python(code: str) -> AlertSettings:
    return command(shlex.join([sys.executable, "-c", code]))


async def test_a_command_gets_the_facts_and_not_the_password(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_BACKUP_PASSWORD", "of the repository")
    out = tmp_path / "told.json"
    code = (
        "import json, os, sys; facts = json.load(sys.stdin); facts['env'] = dict(os.environ);"
        f" open({str(out)!r}, 'w').write(json.dumps(facts))"
    )
    alerts = desk.alerts(python(code))
    await alerts.after_run(backup("failed"))
    await alerts.deliver()
    facts = json.loads(out.read_text())
    assert facts["event"] == facts["env"]["BACKUP_EVENT"] == "failure"
    assert "MCP_BACKUP_PASSWORD" not in facts["env"]


@pytest.mark.parametrize(
    ("receiver", "trouble"),
    [
        (python("raise SystemExit(7)"), "the command ended with status 7"),
        (command("/nowhere/notify me"), "the command cannot be started: No such file or directory"),
        (
            python("import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"),
            "the command did not end within 0.4 seconds",
        ),
    ],
)
async def test_a_command_that_fails_is_tried_again(
    desk: Desk, receiver: AlertSettings, trouble: str
) -> None:
    alerts = desk.alerts(receiver, patience=QUICK if "within" in trouble else USUAL)
    await alerts.after_run(backup("failed"))
    await alerts.deliver()
    (pending,) = await alerts.pending()
    assert (pending.trouble, pending.tries) == (trouble, 1)


def damaged(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be one" * 100)


def a_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("harm", [damaged, a_directory])
async def test_alerts_are_told_although_their_file_is_unusable(
    desk: Desk, http: Receiver, harm: Callable[[Path], None]
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    path = outbox_of(desk.settings())
    path.parent.mkdir(parents=True)
    harm(path)
    for outcome in ("failed", "failed", "stored"):
        await alerts.after_run(backup(outcome))
        await alerts.deliver()
    assert http.events == ["failure", "recovery"]


async def test_an_alert_that_somebody_wrote_into_does_not_hold_up_the_others(
    desk: Desk, http: Receiver
) -> None:
    alerts = desk.alerts(told("webhook", http.url))
    for outcome in ("failed", "stored"):
        await alerts.after_run(backup(outcome))
    with closing(sqlite3.connect(outbox_of(desk.settings()))) as outbox, outbox:
        outbox.execute("UPDATE letters SET alert = '{}' WHERE number = 1")
    assert [each.event for each in await alerts.pending()] == [Event.RECOVERY]
    for _ in range(2):
        await alerts.deliver()
    assert http.events == ["recovery"]
    assert await alerts.pending() == []


async def test_a_process_without_receivers_leaves_the_alerts_to_those_that_have_some(
    desk: Desk, http: Receiver
) -> None:
    silent, telling = desk.alerts(), desk.alerts(told("webhook", http.url))
    await silent.after_run(backup("failed"))
    await telling.after_run(backup("failed"))
    await silent.deliver()
    await telling.deliver()
    assert http.events == ["failure"]


async def test_a_test_alert_is_sent_to_all_and_says_how_each_fared(
    desk: Desk, http: Receiver
) -> None:
    gone = told("ntfy", "http://127.0.0.1:1/", name="gone")
    results = await desk.alerts(told("webhook", http.url), gone).test()
    assert [(each.receiver, each.trouble) for each in results] == [
        ("webhook", ""),
        ("gone", "no connection"),
    ]
    assert http.events == ["test"]


async def test_nothing_is_written_while_nothing_is_wrong(desk: Desk) -> None:
    alerts = desk.alerts()
    await alerts.after_run(backup())
    await alerts.check(standing(1))
    await alerts.deliver()
    assert not outbox_of(desk.settings()).exists()
