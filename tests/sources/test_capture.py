"""Workers of sources, seen from the event loop: their answers, their failures, their ends."""

import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from mcp_backup.arena import Arena
from mcp_backup.errors import (
    BackupError,
    SettingsInvalid,
    SourceBusy,
    SourceMissing,
    SourceUnreadable,
    WorkerDied,
)
from mcp_backup.record import asdict
from mcp_backup.sources import capture, files, sqlite, wire
from mcp_backup.sources.kinds import DatabaseKind, Kind
from mcp_backup.sources.source import Component, Entry, Evidence, SourceSpec
from tests.sources.databases import SLOTS, ask_live, database, fill, holding, make, taken


def test_the_kinds_keep_their_promises_to_the_type_checker() -> None:
    kinds: list[Kind] = [files, sqlite]
    databases: list[DatabaseKind] = [sqlite]
    assert len(kinds) == 2
    assert len(databases) == 1


def test_an_error_arrives_as_the_class_it_was_raised_as() -> None:
    for error in (
        SourceMissing("notes", "/nowhere"),
        SourceBusy("busy", hint="wait"),
        BackupError("plain"),
    ):
        again = wire.error_of(wire.fields_of(error))
        assert type(again) is type(error)
        assert (str(again), again.hint) == (str(error), error.hint)


def test_a_path_that_is_not_text_survives_the_way() -> None:
    path = os.fsdecode(b"/a\xff")
    spec = SourceSpec("notes", Component.CONFIG, "files", path, {"include": ["*"]})
    assert wire.spec_of(json.loads(json.dumps(asdict(spec)))) == spec


async def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    spec = SourceSpec("notes", Component.DATABASES, "oracle", str(tmp_path))
    with pytest.raises(SettingsInvalid, match=r"there are: .*files, .*sqlite"):
        await capture.holders(spec)


async def test_a_worker_that_crashes_is_named_with_its_source(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(20_000), "wal")
    arena = Arena.create(SLOTS)
    try:
        async with capture.captured(database(live), arena, tmp_path) as under_way:
            for slot in range(SLOTS):
                await under_way.give(slot)
            assert isinstance(await under_way.next(), Entry)
            os.kill(under_way.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied, match=r"source 'notes' was killed by signal 9"):
                await _drained(under_way)
    finally:
        arena.close()


async def _drained(under_way: capture.Capture) -> Evidence:
    while not isinstance(event := await under_way.next(), Evidence):
        pass
    return event


async def test_a_cancel_ends_the_worker_at_once_and_frees_the_database(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(50_000), "wal")
    arena = Arena.create(SLOTS)
    pids = []
    try:
        with anyio.fail_after(10), anyio.CancelScope() as scope:
            async with capture.captured(database(live), arena, tmp_path) as under_way:
                pids.append(under_way.pid)
                for slot in range(SLOTS):
                    await under_way.give(slot)
                assert isinstance(await under_way.next(), Entry)
                scope.cancel()
                await under_way.next()
    finally:
        arena.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert ask_live(live, "PRAGMA wal_checkpoint(TRUNCATE)") == 0


async def test_slots_may_be_given_back_by_several_tasks_at_once(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(50_000), "wal")
    arena = Arena.create(SLOTS)
    total = 0
    try:
        async with (
            capture.captured(database(live), arena, tmp_path) as under_way,
            anyio.create_task_group() as tasks,
        ):
            for slot in range(SLOTS):
                tasks.start_soon(under_way.give, slot)
            while not isinstance(event := await under_way.next(), Evidence):
                if isinstance(event, capture.Filled):
                    total += event.length
                    tasks.start_soon(under_way.give, event.slot)
            seen = event
    finally:
        arena.close()
    assert total == seen.files[0].size == live.stat().st_size


async def test_the_state_of_many_sources_is_known_from_one_worker(tmp_path: Path) -> None:
    here = make(tmp_path / "here.db", fill(10))
    os.utime(here, ns=(0, 10**18))
    missing = database(tmp_path / "missing.db")
    marks = await capture.fingerprints([missing, missing])
    assert marks == ["", ""]
    assert await capture.fingerprints([database(here)]) == [""]  # its change time is of this moment


async def test_the_whole_way_round_through_workers(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(5_000), "wal")
    seen = await taken(database(live), tmp_path / "taken")
    staged, undo = tmp_path / "staged", tmp_path / "undo"
    staged.mkdir()
    undo.mkdir()
    seen.image.rename(staged / "live.db")
    assert await capture.examine("sqlite", staged, seen.evidence) == []
    assert await capture.is_sound(database(live))
    ask_live(live, "PRAGMA user_version")
    with holding(live, "DELETE FROM t") as holder:
        assert {found.pid for found in await capture.holders(database(live))} == {holder.pid}
        assert (await capture.keep(database(live), undo)).state == "present"
        assert await capture.place(database(live), staged) == []
        new = await capture.content_digest("notes", staged / "live.db")
        assert await capture.content_digest("notes", live) == new
        await capture.put_back(database(live), undo)
        assert ask_live(live, "SELECT count(*) FROM t") == 0


async def test_a_refusal_of_the_system_is_an_error_of_the_source(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10))
    with pytest.raises(SourceUnreadable, match=r"source 'notes'.*No such file"):
        await capture.place(database(live), tmp_path / "nowhere")
