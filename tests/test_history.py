"""The history: what it promises when processes die, files are damaged and disks are full."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mcp_backup import history as module
from mcp_backup.errors import HistoryUnusable, SlotTaken
from mcp_backup.history import Asker, History, RunSource, asked_by
from mcp_backup.history_facts import Window

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOTES = RunSource("databases", "notes", "stored", read=100, added=50, duration=0.5)


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
def history(tmp_path: Path, clock: Clock) -> History:
    return History(tmp_path / "state" / "history.db", clock)


def another(tmp_path: Path, work: str) -> "subprocess.Popen[str]":
    """Another process with the same history, doing `work` in an async function."""
    code = (
        "import anyio, os, signal, sys\n"
        "from datetime import UTC, datetime\n"
        "from pathlib import Path\n"
        "from mcp_backup.errors import SlotTaken\n"
        "from mcp_backup.history import History, asked_by, Asker\n"
        "NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)\n"
        "async def work():\n"
        f"    history = History(Path({str(tmp_path / 'state' / 'history.db')!r}), lambda: NOON)\n"
        + "".join(f"    {line}\n" for line in work.splitlines())
        + "anyio.run(work)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


async def test_a_run_is_told_as_it_was(history: History, clock: Clock) -> None:
    asker = Asker("mcp", "an agent", "1.2", "create_backup")
    with asked_by(asker):
        run = await history.begin("create", subject="full")
    clock.forward(seconds=3)
    await history.end(
        run, "completed", backup_id="b", read=100, stored=40, duration=3.0, sources=[NOTES]
    )

    (told,) = await history.runs()

    assert (told.verb, told.subject, told.asker, told.backup_id) == ("create", "full", asker, "b")
    assert (told.begun, told.ended, told.outcome) == (NOON, clock.time, "completed")
    assert told.sources == (NOTES,)


async def test_the_asker_is_python_where_no_door_said_otherwise(history: History) -> None:
    await history.begin("check")
    assert [run.asker for run in await history.runs()] == [Asker("python")]


async def test_runs_come_newest_first_and_can_be_chosen(history: History, clock: Clock) -> None:
    for verb in ("create", "verify", "create"):
        await history.end(await history.begin(verb), "completed")
        clock.forward(hours=1)

    assert [run.id for run in await history.runs()] == [3, 2, 1]
    assert [run.id for run in await history.runs(verb="create")] == [3, 1]
    assert [run.id for run in await history.runs(since=NOON + timedelta(hours=1))] == [3, 2]
    assert [run.id for run in await history.runs(limit=1)] == [3]


async def test_the_last_success_is_the_newest_begun_whose_source_was_not_failed(
    history: History, clock: Clock
) -> None:
    for outcome in ("stored", "unchanged", "failed"):
        source = RunSource("databases", "notes", outcome)
        await history.end(await history.begin("create"), "partial", sources=[source])
        clock.forward(hours=1)

    assert await history.last_success() == {("databases", "notes"): NOON + timedelta(hours=1)}


async def test_a_restore_of_a_source_is_no_backup_of_it(history: History) -> None:
    await history.end(await history.begin("restore"), "completed", sources=[NOTES])
    assert await history.last_success() == {}


async def test_totals_count_the_backups(history: History) -> None:
    for outcome in ("completed", "findings", "partial", "failed", "cancelled"):
        run = await history.begin("create")
        await history.end(run, outcome, read=10, added=4, stored=2, duration=1.5)
    await history.end(await history.begin("verify"), "completed", read=1000)
    await history.begin("create")

    totals = await history.totals()

    assert (totals.successes, totals.partial, totals.failures) == (2, 1, 1)
    assert (totals.read, totals.added, totals.stored, totals.longest) == (50, 20, 10, 1.5)


async def test_a_process_killed_in_a_run_leaves_it_interrupted(
    tmp_path: Path, history: History
) -> None:
    work = "run = await history.begin('create')\nprint(run, flush=True)\nawait anyio.sleep(60)"
    with another(tmp_path, work) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert [run.outcome for run in await history.runs()] == ["running"]
        process.send_signal(signal.SIGKILL)
        process.wait()

    (run,) = await history.runs()
    assert (run.outcome, run.error_code, run.ended) == ("interrupted", "interrupted", NOON)
    assert not list((tmp_path / "state" / "history.running").iterdir())


async def test_a_run_under_way_in_another_process_is_left_alone(
    tmp_path: Path, history: History
) -> None:
    run = await history.begin("create")
    work = "print([r.outcome for r in await history.runs()])"
    with another(tmp_path, work) as process:
        assert process.communicate()[0] == "['running']\n"
    await history.end(run, "completed")
    assert [run.outcome for run in await history.runs()] == ["completed"]


async def test_of_processes_that_claim_one_slot_at_once_one_gets_it(
    tmp_path: Path, history: History
) -> None:
    work = (
        "try:\n"
        "    run = await history.begin('create', slot='daily 2026-11-22')\n"
        "except SlotTaken:\n"
        "    print('taken')\n"
        "else:\n"
        "    await history.end(run, 'completed')\n"
        "    print('mine')"
    )
    processes = [another(tmp_path, work) for _ in range(4)]
    said = [process.communicate()[0].strip() for process in processes]

    assert sorted(said) == ["mine", "taken", "taken", "taken"]
    assert [run.asker.slot for run in await history.runs()] == ["daily 2026-11-22"]
    assert await history.slots_since(NOON) == {"daily 2026-11-22"}


@pytest.mark.parametrize("outcome", ["completed", "partial", "findings", "failed"])
async def test_a_slot_that_was_run_stays_taken_however_it_ended(
    history: History, outcome: module.Ending
) -> None:
    await history.end(await history.begin("create", slot="daily"), outcome)
    with pytest.raises(SlotTaken, match="daily"):
        await history.begin("create", slot="daily")


async def test_the_askers_slot_is_claimed(history: History) -> None:
    with asked_by(Asker("schedule", slot="daily")):
        await history.begin("create")
        with pytest.raises(SlotTaken):
            await history.begin("create")
        await history.begin("forget")


async def test_a_released_slot_is_free(history: History) -> None:
    await history.release(await history.begin("create", slot="daily"))
    assert await history.slots_since(NOON) == set()
    await history.begin("create", slot="daily")
    assert await history.slots_since(NOON) == {"daily"}


async def test_a_slot_whose_runs_were_interrupted_is_free_three_times(
    tmp_path: Path, history: History
) -> None:
    for _ in range(module.ATTEMPTS):
        assert await history.slots_since(NOON) == set()
        work = "await history.begin('create', slot='daily')\nos.kill(os.getpid(), signal.SIGKILL)"
        with another(tmp_path, work) as process:
            process.wait()
    with pytest.raises(SlotTaken):
        await history.begin("create", slot="daily")
    assert await history.slots_since(NOON) == {"daily"}


@pytest.mark.parametrize("where", [0, 4096, 8192])
async def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(
    tmp_path: Path, history: History, where: int
) -> None:
    for _ in range(50):
        await history.end(await history.begin("create"), "completed", sources=[NOTES])
    path = tmp_path / "state" / "history.db"
    data = bytearray(path.read_bytes())
    data[where : where + 4096] = os.urandom(4096)
    path.write_bytes(data)

    run = await history.begin("create")
    await history.end(run, "completed", sources=[NOTES])

    aside = await history.damaged()
    assert (path.with_name(aside)).read_bytes() == data
    assert [run.id for run in await history.runs()] == [1]
    assert await history.is_new()


async def test_an_empty_file_is_a_new_history(tmp_path: Path, history: History) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "history.db").touch()
    await history.begin("create")
    assert await history.damaged() == ""


async def test_a_newer_programs_file_is_left_as_it_is(tmp_path: Path, history: History) -> None:
    await history.begin("create")
    with closing(sqlite3.connect(tmp_path / "state" / "history.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryUnusable, match="version 99"):
        await history.runs()


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    with pytest.raises(HistoryUnusable, match=r"state.*Not a directory|File exists"):
        await History(tmp_path / "state" / "history.db", lambda: NOON).begin("create")


async def test_a_full_disk_is_said_and_leaves_the_history_whole(
    tmp_path: Path, history: History
) -> None:
    await history.end(await history.begin("create"), "completed", sources=[NOTES])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(HistoryUnusable, match=r"full|disk I/O error"):
            await history.begin("create")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [run.outcome for run in await history.runs()] == ["completed"]
    assert await history.damaged() == ""


async def test_only_so_many_runs_are_kept_and_every_last_success(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_RUNS", 5)
    await history.end(await history.begin("create"), "completed", sources=[NOTES])
    for _ in range(10):
        await history.end(await history.begin("create"), "failed")

    assert [run.id for run in await history.runs()] == [11, 10, 9, 8, 7]
    assert await history.last_success() == {("databases", "notes"): NOON}


async def test_runs_of_more_than_two_years_ago_are_forgotten(
    history: History, clock: Clock
) -> None:
    await history.end(await history.begin("create"), "completed", sources=[NOTES])
    clock.forward(days=732)
    await history.end(await history.begin("check"), "completed")

    assert [run.verb for run in await history.runs()] == ["check"]
    assert await history.last_success() == {("databases", "notes"): NOON}


async def test_rebuilding_takes_in_what_is_not_on_record_yet_and_happens_once(
    tmp_path: Path, history: History, clock: Clock
) -> None:
    other = History(tmp_path / "other.db", clock)
    for name in ("a", "b"):
        await other.end(await other.begin("create"), "completed", backup_id=name, sources=[NOTES])
    await history.end(await history.begin("create"), "completed", backup_id="b")
    runs = list(reversed(await other.runs()))

    assert await history.is_new()
    assert await history.rebuilt(runs) == 1
    assert await history.rebuilt(runs) == 0
    assert not await history.is_new()
    assert {run.backup_id for run in await history.runs()} == {"a", "b"}
    assert await history.last_success() == {("databases", "notes"): NOON}


async def test_a_slot_that_failed_is_free_again_after_a_while_and_three_times_in_all(
    history: History, clock: Clock
) -> None:
    async def free() -> bool:
        return await history.slots_since(NOON) == set()

    for pause in (timedelta(minutes=5), timedelta(minutes=20)):
        await history.end(await history.begin("create", slot="daily"), "failed")
        clock.time += pause - timedelta(seconds=1)
        assert not await free()
        with pytest.raises(SlotTaken):
            await history.begin("create", slot="daily")
        clock.time += timedelta(seconds=1)
        assert await free()
    await history.end(await history.begin("create", slot="daily"), "failed")
    clock.time += timedelta(days=1)
    assert not await free()
    with pytest.raises(SlotTaken):
        await history.begin("create", slot="daily")


async def test_a_slot_that_succeeded_after_it_failed_is_not_run_again(
    history: History, clock: Clock
) -> None:
    await history.end(await history.begin("create", slot="daily"), "failed")
    clock.time += timedelta(minutes=5)
    await history.end(await history.begin("create", slot="daily"), "partial")
    clock.time += timedelta(days=1)
    with pytest.raises(SlotTaken):
        await history.begin("create", slot="daily")


async def test_the_widest_window_between_copies_is_counted_however_often_it_is_asked_for(
    tmp_path: Path, history: History, clock: Clock
) -> None:
    source = ("databases", "notes")
    began = []
    for hours in (3, 30, 5):
        began.append(clock.time)
        run = await history.begin("create")
        await history.end(run, "completed", sources=[RunSource(*source, "stored")])
        failed = await history.begin("create")
        await history.end(failed, "partial", sources=[RunSource(*source, "failed")])
        found = (await history.windows())[source]
        assert found.newest == clock.time
        clock.time += timedelta(hours=hours)
    window = Window(began[2], timedelta(hours=30), began[1])
    assert (await history.windows())[source] == window
    other = History(tmp_path / "state" / "history.db", clock)
    assert (await other.windows())[source] == window
    for path in tmp_path.glob("state/history.db*"):
        path.unlink()
    assert await history.windows() == {}
