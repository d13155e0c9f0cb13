"""What is told of each backup in a list: what holds it, what proves it, what looks wrong."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest

from mcp_backup.alerts.alert import RunFacts
from mcp_backup.drill_facts import DrillRequest
from mcp_backup.ecosystem_facts import BackupMetadata, RetentionTier
from mcp_backup.format.blob import BlobKind
from mcp_backup.history import RunSource
from mcp_backup.proof.drill import drill
from mcp_backup.repository.objects import pack_name
from mcp_backup.settings_sections import RetentionSettings
from mcp_backup.status import status
from mcp_backup.verbs import BackupEntry, BackupType, Level, SourceFinding
from tests.system import System
from tests.test_forgetting import Days, days

TWO = RetentionSettings(daily=2, weekly=2, monthly=2, minimum=0)
SHRUNKEN = SourceFinding("notes", "shrunken", "notes", "1 rows, 200 rows in the backup before")


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Days]:
    async with days(tmp_path, TWO) as made:
        yield made


async def entries(on: Days) -> list[BackupEntry]:
    return list((await on.engine.backups()).entries)


def emptied(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM notes WHERE id > 1")


async def test_a_backup_is_seen_to_rise_from_tier_to_tier_as_it_ages(on: Days) -> None:
    on.clock.advance(timedelta(days=69))
    first = await on.back_up()

    async def tiers() -> list[RetentionTier]:
        (entry,) = [each for each in await entries(on) if each.snapshot_id == first]
        return BackupMetadata.of_entry(entry, Path()).tiers

    daily, weekly, monthly = RetentionTier
    assert on.clock.now.date() == date(2027, 1, 31)  # the last of its week, and of its month
    assert (await entries(on))[0].held_by == ("latest", "daily 1/2", "weekly 1/2", "monthly 1/2")
    assert await tiers() == [daily, weekly, monthly]
    await on.back_up()
    await on.back_up()
    assert await tiers() == [weekly, monthly]
    on.clock.advance(timedelta(weeks=1))
    await on.back_up()
    assert await tiers() == [monthly]
    on.clock.advance(timedelta(weeks=4))
    await on.back_up()
    assert await tiers() == []
    assert [each.held_by for each in await entries(on)][-1] == ()


async def test_a_shrunken_backup_is_stored_and_said_to_be_suspect_everywhere(on: Days) -> None:
    await on.back_up(BackupType.DATABASE)
    emptied(on.system.notes)
    on.clock.advance(timedelta(days=1))
    report = await on.engine.create(on.request(BackupType.DATABASE))

    assert SHRUNKEN in report.suspect
    assert report.status == "completed"
    assert (await on.engine.verify()).ok  # the bytes are what they were
    backup = await on.engine.catalog.find("latest")
    manifest = await on.engine.catalog.manifest(backup)
    assert manifest is not None
    (notes, tasks) = manifest.sources
    assert "1 rows, 200 rows in the backup before" in {each.message for each in notes.suspect}
    assert tasks.suspect == ()
    newest, before = await entries(on)
    assert (newest.suspect, before.suspect) == (("notes",), ())
    assert BackupMetadata.of_report(report, Path()).suspect == ["notes"]
    assert BackupMetadata.of_entry(newest, Path()).suspect == ["notes"]

    _, run, _ = await on.engine.history.runs()
    assert run.outcome == "findings"
    (facts, _) = RunFacts.of_run(run).sources
    assert facts.suspect == "notes: 1 rows, 200 rows in the backup before"
    (facts, _) = RunFacts.of_backup(report, scheduled=False).sources
    assert facts.suspect
    told = await status(on.engine, around=False)
    assert told.sources[0].suspect == "notes: 1 rows, 200 rows in the backup before"
    assert any("looks damaged or shrunken: notes: 1 rows" in each for each in told.reasons)

    await on.back_up(BackupType.DATABASE)  # as small as before: no news
    assert [each.suspect for each in await entries(on)] == [(), ("notes",), ()]
    assert (await status(on.engine, around=False)).sources[0].suspect == ""


async def test_another_machines_source_of_the_same_name_is_not_compared_with(on: Days) -> None:
    await on.back_up(BackupType.DATABASE)
    emptied(on.system.notes)
    async with System(on.system.root, on.system.settings).engine(on.clock, host="other") as other:
        on.clock.advance(timedelta(days=1))
        report = await other.create(on.request(BackupType.DATABASE))
    assert report.suspect == ()


async def test_when_a_backup_was_verified_and_drilled_is_told(on: Days) -> None:
    await on.back_up()
    made = on.clock.now
    await on.back_up(verify=True)
    newest, oldest = await entries(on)
    assert (newest.verified, oldest.verified) == (on.clock.now, None)

    on.clock.advance(timedelta(days=2))
    await on.engine.verify(oldest.backup_id, Level.STRUCTURE)  # reads nothing back
    assert (await entries(on))[1].verified is None
    await on.engine.verify(oldest.backup_id, Level.DATA)
    assert (await entries(on))[1].verified == on.clock.now == made + timedelta(days=3)
    assert "latest proven" not in (await entries(on))[1].held_by

    on.clock.advance(timedelta(days=1))
    await drill(on.engine, DrillRequest(("project",), "single-server"))
    newest, oldest = await entries(on)
    assert (newest.drilled, oldest.drilled) == (on.clock.now, None)
    told = BackupMetadata.of_entry(newest, Path())
    assert (told.verified_at, told.drilled_at) == (newest.verified, newest.drilled)


async def test_a_backup_that_a_verification_finds_damaged_is_no_longer_proven(on: Days) -> None:
    proven = await on.back_up(BackupType.DATABASE, verify=True)
    await on.back_up(BackupType.DATABASE, verify=True)
    newest, before = await entries(on)
    assert "latest proven" in newest.held_by
    assert "latest proven" not in before.held_by

    run = await on.engine.history.begin("verify")
    found = RunSource("", "notes", "findings", findings=1)
    await on.engine.history.end(run, "findings", backup_id=newest.backup_id, sources=[found])

    newest, before = await entries(on)
    assert (newest.suspect, newest.verified) == (("notes",), None)
    assert "latest proven of databases/notes" in (await verdict(on, before))
    assert "suspect, daily 1/2 of databases/notes" in (await verdict(on, newest))
    assert before.snapshot_id == proven


async def verdict(on: Days, entry: BackupEntry) -> tuple[str, ...]:
    return (await on.engine.judging.verdicts())[entry.snapshot_id].reasons


async def test_what_is_from_the_future_is_judged_again_when_its_time_comes(on: Days) -> None:
    await on.back_up()
    on.clock.advance(-timedelta(days=3))
    assert (await entries(on))[0].held_by == ("from the future",)
    on.clock.advance(timedelta(days=3))
    assert (await entries(on))[0].held_by[0] == "latest"


async def test_a_manifest_that_cannot_be_read_hides_no_other_and_is_held(on: Days) -> None:
    await on.back_up()
    await on.back_up(BackupType.DATABASE)
    damaged = await on.engine.catalog.find("latest")
    node = (await on.engine.catalog.root(damaged))["manifest.json"]
    index = await on.engine.repository.load_index()
    (location,) = index.find_all(BlobKind.DATA, (node.content or ())[0])
    pack = on.system.repository / pack_name(location.pack)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[location.offset + 20] ^= 1
    pack.write_bytes(data)
    async with on.system.engine(on.clock) as fresh:
        newest, oldest = (await fresh.backups()).entries
        assert newest.held_by == ("its manifest cannot be read",)
        assert oldest.held_by[0] == "latest"
        assert BackupMetadata.of_entry(newest, Path()).status == "corrupted"
        report = await fresh.create(on.request(BackupType.CONFIG))
        assert report.status == "completed"
