"""What `create` promises: one outcome per source, the truth about each, and all or nothing."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from msgspec import structs

from mcp_backup.errors import NothingBackedUp, StoreFull, UnknownSource
from mcp_backup.place import Place
from mcp_backup.progress import Progress
from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import BackupReport, BackupType, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.doubles import FOREVER, Fault, FaultyStore, FrozenClock, How, full
from tests.system import System, change, make_database, make_system, settled


@pytest.fixture
async def system(tmp_path: Path) -> System:
    return await make_system(tmp_path / "system")


def snapshots(system: System) -> list[str]:
    return sorted(os.listdir(system.repository / "snapshots"))


async def test_a_backup_tells_one_outcome_per_source(system: System) -> None:
    async with system.engine() as engine:
        report = await engine.create(CreateRequest(note="before the migration"))
    assert report.status == "completed"
    assert report.verification == "passed"
    assert [(o.name, o.outcome, o.files) for o in report.outcomes] == [
        ("notes", "stored", 1),
        ("tasks", "stored", 1),
        ("project", "stored", 3),
    ]
    assert snapshots(system) == [report.snapshot_id]


async def test_a_failing_source_does_not_sink_the_others(system: System) -> None:
    system.tasks.unlink()
    async with system.engine() as engine:
        report = await engine.create(CreateRequest())
        page = await engine.backups()
    assert report.status == "partial"
    failed = [outcome for outcome in report.outcomes if outcome.outcome == "failed"]
    assert [outcome.name for outcome in failed] == ["tasks"]
    assert failed[0].failure is not None
    assert failed[0].failure.code == "source-missing"
    assert not system.tasks.exists()
    assert page.entries[0].failed == ("tasks",)
    assert page.entries[0].sources == ("notes", "project")


async def test_when_every_source_fails_nothing_is_stored(system: System) -> None:
    system.notes.unlink()
    system.tasks.write_text("this is no database, " * 100)
    async with system.engine() as engine:
        with pytest.raises(NothingBackedUp, match=r"notes.*does not exist.*tasks"):
            await engine.create(CreateRequest(BackupType.DATABASE))
    assert snapshots(system) == []


async def test_an_unknown_database_is_refused_with_the_names_there_are(system: System) -> None:
    async with system.engine() as engine:
        with pytest.raises(UnknownSource, match="notes, tasks"):
            await engine.create(CreateRequest(BackupType.DATABASE, databases=("memories",)))
    assert snapshots(system) == []


async def test_two_backups_in_one_second_have_different_ids(system: System) -> None:
    async with system.engine(FrozenClock()) as engine:
        one = await engine.create(CreateRequest(BackupType.CONFIG))
        two = await engine.create(CreateRequest(BackupType.CONFIG))
    assert (one.backup_id, two.backup_id) == (
        "backup_20261122_120000",
        "backup_20261122_120000_2",
    )


async def test_what_provably_did_not_change_is_not_read_again(system: System) -> None:
    await settled(system)
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        change(system.tasks)
        report = await engine.create(CreateRequest(BackupType.INCREMENTAL))
        assert [(o.name, o.outcome) for o in report.outcomes] == [
            ("notes", "unchanged"),
            ("tasks", "stored"),
            ("project", "unchanged"),
        ]
        verified = await engine.verify(report.backup_id, Level.RESTORE)
    assert verified.ok
    assert verified.sources == ("notes", "tasks", "project")


async def test_a_full_backup_reads_even_what_seems_unchanged(system: System) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        report = await engine.create(CreateRequest(BackupType.FULL))
    assert {outcome.outcome for outcome in report.outcomes} == {"stored"}


async def test_other_exclusions_make_another_image_though_the_file_did_not_change(
    system: System,
) -> None:
    await settled(system)
    async with system.engine() as engine:
        await engine.create(CreateRequest())
    first, *others = system.settings.databases
    changed = structs.replace(
        system.settings, databases=(structs.replace(first, exclude_tables=("notes",)), *others)
    )
    async with System(system.root, changed).engine() as engine:
        report = await engine.create(CreateRequest(BackupType.INCREMENTAL))
    assert [o.outcome for o in report.outcomes] == ["stored", "unchanged", "unchanged"]


async def test_a_copy_that_reads_back_differently_is_a_failed_source(system: System) -> None:
    lying = FaultyStore(
        LocalStore(system.repository), Fault("get", 1, How.LIE, times=FOREVER, under="data/")
    )
    async with system.engine(store=lying) as engine:
        with pytest.raises(NothingBackedUp, match="what was stored is not what was read"):
            await engine.create(CreateRequest(BackupType.DATABASE))
    assert snapshots(system) == []


async def test_a_full_repository_disk_stores_no_snapshot_and_the_next_backup_works(
    system: System,
) -> None:
    store = FaultyStore(LocalStore(system.repository), Fault("put", 1, error=full(), under="data/"))
    async with system.engine(store=store) as engine:
        with pytest.raises(StoreFull, match="no space left"):
            await engine.create(CreateRequest())
        assert snapshots(system) == []
        assert os.listdir(system.repository / "locks") == []
        report = await engine.create(CreateRequest())
        assert (await engine.verify(report.backup_id, Level.RESTORE)).ok


async def test_a_cancel_in_the_middle_leaves_no_snapshot_no_lock_and_no_scratch(
    system: System,
) -> None:
    make_database(system.root / "big.db", 60_000)
    (system.root / "big.db").replace(system.notes)
    async with system.engine() as engine:
        with anyio.CancelScope() as scope:

            async def cancel_at_first(progress: Progress) -> None:
                if progress.stage == "capture":
                    scope.cancel()

            await engine.create(CreateRequest(), cancel_at_first)
        assert scope.cancelled_caught
        assert snapshots(system) == []
        assert os.listdir(system.repository / "locks") == []
        assert list(system.settings.scratch.iterdir()) == []
        assert (await engine.create(CreateRequest())).status == "completed"


async def test_one_changed_row_adds_about_what_changed(system: System) -> None:
    make_database(system.root / "big.db", 40_000)
    (system.root / "big.db").replace(system.notes)
    async with system.engine() as engine:
        first = await engine.create(CreateRequest(BackupType.DATABASE))
        change(system.notes)
        second = await engine.create(CreateRequest(BackupType.DATABASE))
    assert second.read_bytes > 7_000_000
    assert second.added_bytes < first.added_bytes / 5


async def test_a_database_whose_file_was_touched_and_not_changed_adds_no_tree(
    system: System,
) -> None:
    async with system.engine() as engine:
        first = await engine.create(CreateRequest(BackupType.DATABASE))
        with closing(sqlite3.connect(system.notes)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.utime(system.notes)
        second = await engine.create(CreateRequest(BackupType.DATABASE))
        trees = [
            await engine.catalog.tree(await engine.catalog.find(r.backup_id), "databases/notes")
            for r in (first, second)
        ]
    assert trees[0].subtree == trees[1].subtree


async def test_progress_grows_and_ends_at_the_whole(system: System) -> None:
    told: list[Progress] = []

    async def remember(progress: Progress) -> None:
        told.append(progress)

    async with system.engine() as engine:
        await engine.create(CreateRequest(BackupType.DATABASE, databases=("notes",)), remember)
    captured = [p for p in told if p.stage == "capture" and p.subject == "notes"]
    assert captured
    assert captured[-1].done == captured[-1].total == system.notes.stat().st_size


async def test_two_engines_back_up_into_one_repository_at_once(system: System) -> None:
    async with system.engine() as one, system.engine() as two:
        reports = await asyncio.gather(one.create(CreateRequest()), two.create(CreateRequest()))
        assert len({report.backup_id for report in reports}) == 2
        for report in reports:
            assert (await one.verify(report.backup_id, Level.DATA)).ok


async def test_backups_of_one_engine_at_once_are_named_one_after_the_other(system: System) -> None:
    to_thread.current_default_thread_limiter().total_tokens = 1  # as if all others were taken
    async with system.engine() as engine:
        reports = await asyncio.gather(*(engine.create(CreateRequest()) for _ in range(3)))
        names = [backup.backup_id for backup in await engine.catalog.backups()]
    assert sorted(report.backup_id for report in reports) == sorted(names)
    assert len(set(names)) == 3


async def test_a_backup_never_relies_on_what_a_failing_one_beside_it_has_not_indexed(
    system: System,
) -> None:
    """The same blobs, saved by two at once; the first one's index file cannot be written."""
    store = FaultyStore(LocalStore(system.repository), Fault("put", 1, error=full(), under="index"))
    request = CreateRequest(BackupType.DATABASE, verify=False)
    async with system.engine(store=store) as engine:
        one, two = await asyncio.gather(
            engine.create(request), engine.create(request), return_exceptions=True
        )
        failed, done = (one, two) if isinstance(one, BaseException) else (two, one)
        assert isinstance(failed, StoreFull)
        assert isinstance(done, BackupReport)
    async with system.engine() as fresh:
        assert (await fresh.verify(done.backup_id, Level.RESTORE)).ok


async def test_the_password_is_not_in_the_environment_of_workers(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_BACKUP_PASSWORD", system.password)
    seen: list[bytes] = []

    async def look(progress: Progress) -> None:
        assert progress.stage
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                try:
                    command = (process / "cmdline").read_bytes()
                    if b"mcp_backup.sources.worker" in command:
                        seen.append(command + (process / "environ").read_bytes())
                except OSError:
                    continue

    async with system.engine() as engine:
        await engine.create(CreateRequest(), look)
    assert seen
    assert not any(system.password.encode() in text for text in seen)


async def test_a_scratch_restore_of_a_backup_is_the_captured_system(system: System) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        plan = await engine.plan_restore(RestoreRequest(target="scratch"))
        report = await engine.restore(plan.plan_id)
    places = {target.source: Path(target.path) for target in report.targets}
    for file in (".env", "pyproject.toml", "settings/server.yaml"):
        assert (places["project"] / file).read_bytes() == (system.project / file).read_bytes()


def test_a_place_tells_what_this_process_has_around_it() -> None:
    assert Place.here().hostname == os.uname().nodename
