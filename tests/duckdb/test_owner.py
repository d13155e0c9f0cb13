"""A program that has its database open itself hands out the copy that is backed up."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mcp_backup.backup.handouts import handed_out
from mcp_backup.errors import NothingBackedUp, SettingsInvalid, SourceBusy, UnknownSource
from mcp_backup.handing_out import hand_out
from mcp_backup.opening import initialise
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import DatabaseSettings, RepositorySettings
from mcp_backup.verbs import CreateRequest
from tests.duckdb.ducks import source
from tests.system import System

EXAMPLE = Path(__file__).parents[2] / "examples" / "owner.py"


def test_the_example_backs_up_the_database_that_it_has_open(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "'status': 'completed'" in ran.stdout
    assert "memories" in ran.stdout


@pytest.fixture
async def system(tmp_path: Path) -> System:
    (tmp_path / "notes.db").write_bytes(b"what nobody opens")
    settings = Settings(
        repository=RepositorySettings(
            location=str(tmp_path / "backups"), password_file=tmp_path / "backups.key"
        ),
        databases=(
            DatabaseSettings(name="notes", path=tmp_path / "notes.db", kind="sqlite"),
            DatabaseSettings(name="told", path=tmp_path / "notes.db"),
        ),
        state_dir=tmp_path / "state",
    )
    await initialise(settings)
    return System(tmp_path, settings)


async def test_a_function_that_fails_or_writes_nothing_is_a_failed_source(system: System) -> None:
    async def failing(directory: Path) -> None:
        raise ZeroDivisionError("in the middle")

    async def idle(directory: Path) -> None:
        pass

    async with system.engine() as engine:
        for handout, told in ((failing, "ZeroDivisionError: in the middle"), (idle, "0 files")):
            hand_out(engine, {"notes": handout})
            with pytest.raises(NothingBackedUp, match=told):
                await engine.create(CreateRequest(databases=("notes",)))
        with pytest.raises(UnknownSource):
            hand_out(engine, {"other": idle})
        with pytest.raises(SettingsInvalid, match="has no `kind`"):
            hand_out(engine, {"told": idle})


async def test_what_is_captured_is_the_copy_that_was_handed_out(system: System) -> None:
    async def copied(directory: Path) -> None:
        with closing(sqlite3.connect(directory / "copy.db")) as copy, copy:
            copy.execute("CREATE TABLE notes (body)")
            copy.execute("INSERT INTO notes VALUES ('handed out')")

    async with system.engine() as engine:
        hand_out(engine, {"notes": copied})
        report = await engine.create(CreateRequest(databases=("notes",)))
        manifest = await engine.catalog.manifest(await engine.catalog.find(report.backup_id))
    assert manifest is not None
    (record,) = manifest.sources
    assert record.evidence is not None
    assert record.evidence.facts["tables"] == {"notes": 1}
    assert [(file.path, file.original) for file in record.evidence.files] == [
        ("notes.db", str(system.root / "notes.db"))
    ]
    assert record.evidence.fingerprint == ""


async def test_a_function_that_takes_too_long_is_cancelled(tmp_path: Path) -> None:
    async def endless(directory: Path) -> None:
        await asyncio.Event().wait()

    with pytest.raises(SourceBusy, match=r"no copy in 0\.05 s"):
        await handed_out(endless, source(tmp_path / "x.duckdb"), tmp_path / "copies", 0.05)
