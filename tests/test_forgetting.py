"""Forgetting on a small live system: what goes, what stays and why, and what stops it."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs

from mcp_backup.engine import Engine
from mcp_backup.errors import IntegrityError, ObjectMissing
from mcp_backup.forgetting import forget, prune
from mcp_backup.format.blob import BlobKind
from mcp_backup.repository.objects import pack_name
from mcp_backup.settings_sections import RetentionSettings
from mcp_backup.verbs import BackupType, CreateRequest, Level
from tests.doubles import FrozenClock
from tests.system import System, change, make_system

ONE_DAY = RetentionSettings(daily=1, weekly=0, monthly=0, minimum=0)


class Days:
    """An engine on a system of its own, and a clock that is moved a day before each backup."""

    def __init__(self, system: System, engine: Engine, clock: FrozenClock) -> None:
        self.system, self.engine, self.clock = system, engine, clock

    async def back_up(self, kind: BackupType = BackupType.CONFIG, *, verify: bool = False) -> str:
        self.clock.advance(timedelta(days=1))
        change(self.system.notes, f"as of {self.clock.now}")
        return (await self.engine.create(self.request(kind, verify=verify))).snapshot_id

    def request(self, kind: BackupType, *, verify: bool = False) -> CreateRequest:
        return CreateRequest(kind, verify=verify)

    def files(self) -> dict[Path, bytes]:
        root = self.system.repository
        return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@asynccontextmanager
async def days(root: Path, retention: RetentionSettings = ONE_DAY) -> AsyncIterator[Days]:
    made = await make_system(root)
    system = System(root, structs.replace(made.settings, retention=retention))
    aged(system.project)
    clock = FrozenClock()
    async with system.engine(clock) as engine:
        yield Days(system, engine, clock)


async def test_what_retention_does_not_keep_goes_and_what_stays_verifies(tmp_path: Path) -> None:
    async with days(tmp_path) as on:
        backups = [await on.back_up(BackupType.FULL, verify=True) for _ in range(3)]
        report = await forget(on.engine)
        assert [each.snapshot_id for each in report.forgotten] == backups[1::-1]
        assert [each.snapshot_id for each in report.kept] == backups[2:]
        assert report.kept[0].reasons == ("latest", "latest proven", "daily 1/1")
        assert report.prune is not None
        assert report.prune.freed_bytes > 0
        page = await on.engine.backups()
        assert [each.snapshot_id for each in page.entries] == backups[2:]
        assert (await on.engine.check(Level.DATA)).ok
        assert (await on.engine.verify(backups[2], Level.RESTORE)).ok
        again = await forget(on.engine)
        assert (again.forgotten, again.prune) == ((), None)
        assert (await prune(on.engine)).freed_bytes == 0


async def test_a_dry_run_tells_the_same_and_changes_nothing(tmp_path: Path) -> None:
    async with days(tmp_path) as on:
        for _ in range(2):
            await on.back_up()
        before = on.files()
        plan = await forget(on.engine, dry_run=True)
        assert (await prune(on.engine, dry_run=True)).dry_run
        assert on.files() == before
        done = await forget(on.engine)
        assert (plan.dry_run, done.dry_run) == (True, False)
        assert (plan.kept, plan.forgotten) == (done.kept, done.forgotten)
        assert plan.prune is not None
        assert done.prune is not None
        assert plan.prune.packs == done.prune.packs
        assert min(plan.prune.freed_bytes, done.prune.freed_bytes) > 0


async def test_only_what_was_agreed_to_is_dropped(tmp_path: Path) -> None:
    async with days(tmp_path) as on:
        backups = [await on.back_up() for _ in range(3)]
        report = await forget(on.engine, only={backups[0]})
        assert [each.snapshot_id for each in report.forgotten] == backups[:1]
        assert [each.reasons for each in report.kept][1:] == [("not among those agreed to",)]


async def test_a_database_backup_leaves_the_full_one_and_a_shrunken_one_the_good_one(
    tmp_path: Path,
) -> None:
    async with days(tmp_path) as on:
        full = await on.back_up(BackupType.FULL)
        await on.back_up(BackupType.DATABASE)
        newer = await on.back_up(BackupType.DATABASE)
        with closing(sqlite3.connect(on.system.notes)) as connection, connection:
            connection.execute("DELETE FROM notes WHERE id > 1")
        shrunken = await on.back_up(BackupType.DATABASE)
        judged = {
            each: found.reasons for each, found in (await on.engine.judging.verdicts()).items()
        }
        assert "suspect, daily 1/1 of databases/notes" in judged[shrunken]
        assert "latest good of databases/notes" in judged[newer]
        assert "latest of config/project, everything" in judged[full]
        report = await forget(on.engine)
        assert [each.snapshot_id for each in report.kept] == [shrunken, newer, full]


async def test_a_backup_that_was_not_read_back_does_not_push_out_the_one_that_was(
    tmp_path: Path,
) -> None:
    async with days(tmp_path) as on:
        proven = await on.back_up(verify=True)
        await on.back_up()
        newest = await on.back_up()
        report = await forget(on.engine)
        assert [each.snapshot_id for each in report.kept] == [newest, proven]


async def test_all_zeros_keep_everything_and_say_so(tmp_path: Path) -> None:
    async with days(tmp_path, RetentionSettings(daily=0, weekly=0, monthly=0)) as on:
        await on.back_up()
        report = await forget(on.engine)
        assert report.forgotten == ()
        assert report.warnings == (
            "retention.daily, .weekly and .monthly are all 0, so every backup is kept",
        )


async def test_a_backup_whose_manifest_is_damaged_is_kept(tmp_path: Path) -> None:
    async with days(tmp_path) as on:
        damaged = await on.back_up()
        for _ in range(2):
            newest = await on.back_up()
        backup = await on.engine.catalog.find(damaged)
        node = (await on.engine.catalog.root(backup))["manifest.json"]
        index = await on.engine.repository.load_index(refresh=True)
        place = index.find(BlobKind.DATA, (node.content or ())[0])
        assert place is not None
        flip(on.system.repository / pack_name(place.pack), place.offset + 20)
    async with on.system.engine(on.clock) as engine:
        report = await forget(engine)
        assert [each.snapshot_id for each in report.kept] == [newest, damaged]
        assert report.kept[1].reasons == ("its manifest cannot be read",)
        assert report.warnings[0].startswith("backups with an unreadable manifest are kept: 1")


async def test_a_repository_that_lacks_something_needed_loses_no_backup(tmp_path: Path) -> None:
    async with days(tmp_path) as on:
        for _ in range(3):
            await on.back_up()
        packs = (on.system.repository / "data").glob("*/*")
        max(packs, key=lambda path: path.stat().st_mtime_ns).unlink()  # of the newest backup
        before = on.files()
        with pytest.raises((ObjectMissing, IntegrityError), match="missing"):
            await forget(on.engine)
        assert on.files() == before


def aged(root: Path) -> None:
    """Make files look as if they had been written a while ago, so that nobody waits for them."""
    for path in (root, *root.rglob("*")):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def flip(path: Path, at: int) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
