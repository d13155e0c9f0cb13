"""The Python API as the original promised it, on real databases."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

import anyio
import pytest

import mcp_backup
from mcp_backup import (
    AlertSettings,
    BackupStatus,
    BackupType,
    DatabaseBackupConfig,
    EcosystemBackupManager,
    RetentionTier,
    news,
)
from mcp_backup.errors import NothingBackedUp, SettingsInvalid, UsageError
from mcp_backup.secret import Secret
from tests.alerts.receiver import receiver


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("session-buddy/data/sessions.db", "akosha/data/memories.db"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE rows (text)")
            database.execute("CREATE TABLE cache (text)")
            database.execute("INSERT INTO rows VALUES ('one')")
            database.execute("INSERT INTO cache VALUES ('temporary')")
    return tmp_path


def as_promised() -> EcosystemBackupManager:
    backup_mgr = EcosystemBackupManager(
        backup_base_dir="./backups",
        retention_policy={
            RetentionTier.DAILY: 30,
            RetentionTier.WEEKLY: 12,
            RetentionTier.MONTHLY: 6,
        },
    )
    backup_mgr.register_database(
        DatabaseBackupConfig(name="session-buddy", db_path="session-buddy/data/sessions.db")
    )
    backup_mgr.register_database(
        DatabaseBackupConfig(
            name="akosha", db_path="akosha/data/memories.db", tables_to_exclude=["cache"]
        )
    )
    return backup_mgr


def rows(path: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [text for (text,) in database.execute(f"SELECT text FROM {table}")]


async def test_databases_are_backed_up_listed_verified_and_restored(cwd: Path) -> None:
    manager = as_promised()
    made = await manager.create_backup(BackupType.FULL)
    assert made.status is BackupStatus.COMPLETED
    assert sorted(made.databases_backed_up) == ["akosha", "session-buddy"]
    assert made.size_bytes > 0
    assert (await manager.verify_backup(made.backup_id)).ok
    (listed,) = await manager.list_backups()
    assert (listed.backup_id, listed.checksum) == (made.backup_id, made.checksum)

    for path in cwd.rglob("*.db"):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM rows")
    restored = await manager.restore_backup(made.backup_id, components=["databases"])
    assert restored["status"] == "success"
    assert sorted(restored["restored_components"]) == ["akosha", "session-buddy"]
    assert rows(cwd / "session-buddy/data/sessions.db", "rows") == ["one"]
    assert rows(cwd / "session-buddy/data/sessions.db", "cache") == ["temporary"]
    assert rows(cwd / "akosha/data/memories.db", "rows") == ["one"]
    assert rows(cwd / "akosha/data/memories.db", "cache") == []


async def test_repository_and_key_are_made_at_the_first_use_and_not_before(cwd: Path) -> None:
    manager = as_promised()
    assert not (cwd / "backups").exists()
    await manager.create_backup()
    assert (cwd / "backups" / "config").is_file()
    assert (cwd / "backups.key").stat().st_mode & 0o777 == 0o600
    key = (cwd / "backups.key").read_bytes()
    await as_promised().create_backup()
    assert (cwd / "backups.key").read_bytes() == key
    assert len(await manager.list_backups()) == 2


async def test_a_relative_path_is_meant_from_where_it_was_given(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = as_promised()
    (cwd / "elsewhere").mkdir()
    monkeypatch.chdir(cwd / "elsewhere")
    assert (await manager.create_backup()).status is BackupStatus.COMPLETED


async def test_a_missing_database_is_never_counted_as_backed_up(cwd: Path) -> None:
    manager = as_promised()
    (cwd / "akosha/data/memories.db").unlink()
    made = await manager.create_backup()
    assert made.status is BackupStatus.PARTIAL
    assert made.databases_backed_up == ["session-buddy"]
    with pytest.raises(NothingBackedUp):
        await manager.create_backup(databases=["akosha"])


async def test_a_disabled_database_is_left_out(cwd: Path) -> None:
    manager = EcosystemBackupManager()
    for name, enabled in (("session-buddy", True), ("akosha", False)):
        (path,) = (cwd / name / "data").iterdir()
        manager.register_database(DatabaseBackupConfig(name, path, backup_enabled=enabled))
    assert (await manager.create_backup()).databases_backed_up == ["session-buddy"]


async def test_statistics_are_counted_from_the_backups_there_are(cwd: Path) -> None:
    manager = as_promised()
    empty = await manager.get_statistics()
    assert (empty["total_backups"], empty["last_backup_time"]) == (0, None)
    made = await manager.create_backup()
    (cwd / "akosha/data/memories.db").unlink()
    await manager.create_backup(verify=False)
    with pytest.raises(NothingBackedUp):
        await manager.create_backup(databases=["akosha"])
    week = timedelta(days=7)
    later = EcosystemBackupManager(now=lambda: datetime.now(UTC) + week)
    assert (await manager.get_statistics())["rpo_hours"].keys() == {"session-buddy", "akosha"}
    statistics = await later.get_statistics()
    assert (statistics["health"], statistics["failed_backups"]) == ("failing", 1)
    assert statistics["compression_ratio"] > 1
    assert statistics["total_backups"] == 2
    assert (statistics["successful_backups"], statistics["partial_backups"]) == (1, 1)
    assert statistics["total_size_bytes"] >= made.added_bytes
    assert statistics["age_distribution"]["1-4 weeks"] == 2
    assert statistics["retention_policy"] == {"daily": 30, "weekly": 12, "monthly": 6}


def test_the_scheduler_runs_as_promised_and_catches_up_on_what_was_missed(cwd: Path) -> None:
    backup_mgr = as_promised()
    backup_mgr.schedule_automated_backups(daily_hour=2, weekly_day="sunday", weekly_hour=3)
    backup_mgr.start_scheduler()
    state = wait_for(lambda: next(Path.home().rglob("schedule.since"), None))
    backup_mgr.stop_scheduler()
    assert anyio.run(backup_mgr.list_backups) == []  # nothing is due yet
    state.write_text((datetime.now(UTC) - timedelta(days=1)).isoformat())  # since yesterday
    backup_mgr.start_scheduler()
    backup_mgr.start_scheduler()
    made = wait_for(lambda: anyio.run(backup_mgr.list_backups))
    backup_mgr.stop_scheduler()
    backup_mgr.stop_scheduler()
    assert made[-1].status is BackupStatus.COMPLETED
    assert sorted(made[-1].databases_backed_up) == ["akosha", "session-buddy"]


T = TypeVar("T")


def wait_for(look: Callable[[], T | None]) -> T:
    deadline = monotonic() + 30
    while not (found := look()):
        assert monotonic() < deadline
        sleep(0.05)  # for another thread
    return found


def test_a_program_that_ends_stops_its_scheduler_without_a_word(cwd: Path) -> None:
    program = """
import mcp_backup
manager = mcp_backup.EcosystemBackupManager()
manager.register_database(mcp_backup.DatabaseBackupConfig("akosha", "akosha/data/memories.db"))
manager.schedule_automated_backups(daily_hour=2, weekly_day="sunday", weekly_hour=3)
manager.start_scheduler()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_what_is_not_or_cannot_be_scheduled_is_told() -> None:
    manager = EcosystemBackupManager()
    with pytest.raises(UsageError, match="nothing is scheduled"):
        manager.start_scheduler()
    for wrong in ({"daily_hour": 24}, {"weekly_day": "sunnyday"}, {"weekly_hour": -1}):
        with pytest.raises(SettingsInvalid, match="there is no hour"):
            manager.schedule_automated_backups(**wrong)
    manager.stop_scheduler()


async def test_what_cannot_be_registered_is_told_in_a_sentence(cwd: Path) -> None:
    manager = as_promised()
    with pytest.raises(UsageError, match="'akosha' is registered already"):
        manager.register_database(DatabaseBackupConfig(name="akosha", db_path="x.db"))
    manager.register_database(DatabaseBackupConfig(name="../x", db_path="x.db"))
    with pytest.raises(SettingsInvalid, match="letters, digits"):
        await manager.create_backup()
    assert not (cwd / "backups").exists()


async def test_an_unknown_component_or_backup_restores_nothing(cwd: Path) -> None:
    manager = as_promised()
    await manager.create_backup()
    with pytest.raises(UsageError, match="'database' is none of the components"):
        await manager.restore_backup("latest", components=["database"])
    with pytest.raises(UsageError):
        await manager.restore_backup("../../etc/passwd")


def test_what_goes_wrong_in_a_call_or_in_the_schedule_is_told(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "_HANDSHAKE_SECONDS", 0.0)
    monkeypatch.setattr(news, "_LOOK_SECONDS", 0.1)
    database = cwd / "akosha/data/memories.db"
    with receiver() as http:
        manager = EcosystemBackupManager(
            alerts=[AlertSettings(kind="webhook", url=Secret(http.url))]
        )
        manager.register_database(DatabaseBackupConfig("akosha", database))
        assert anyio.run(manager.create_backup).status is BackupStatus.COMPLETED
        database.rename(cwd / "away.db")
        with pytest.raises(NothingBackedUp):
            anyio.run(manager.create_backup)
        assert http.events == ["failure"]
        (cwd / "away.db").rename(database)
        anyio.run(manager.create_backup)
        assert http.events == ["failure", "recovery"]

        database.rename(cwd / "away.db")
        since = datetime.now(UTC) - timedelta(days=1)
        state = next(Path.home().rglob("history.db")).parent
        (state / "schedule.since").write_text(since.isoformat())
        manager.schedule_automated_backups()
        manager.start_scheduler()
        wait_for(lambda: len(http.events) > 2)
        manager.stop_scheduler()
        assert http.events[2] == "failure"


def test_the_package_exports_what_it_promises() -> None:
    for name in mcp_backup.__all__:
        assert getattr(mcp_backup, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Backup'"):
        _ = mcp_backup.Backup
