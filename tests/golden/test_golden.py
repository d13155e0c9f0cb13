"""What earlier versions wrote, this one reads: every byte of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.verbs import CreateRequest, Level
from tests.golden.make import digests
from tests.interop.conftest import Restic
from tests.system import System, settings_of

HERE = Path(__file__).parent
VERSIONS = sorted(path.parent.name for path in HERE.glob("*/expected.json"))


@pytest.fixture(params=VERSIONS)
def kept(request: pytest.FixtureRequest) -> Path:
    return HERE / str(request.param)


@pytest.fixture
def expected(kept: Path) -> Any:
    return json.loads((kept / "expected.json").read_text())


@pytest.fixture
def system(kept: Path, expected: Any, tmp_path: Path) -> System:
    """A copy, since reading takes a lock."""
    system = System(tmp_path, settings_of(tmp_path))
    shutil.copytree(kept / "repository", system.repository)
    (tmp_path / "backups.key").write_text(expected["password"])
    return system


def test_there_is_something_to_compare_with() -> None:
    assert VERSIONS


async def test_backups_of_an_earlier_version_come_back_byte_for_byte(
    system: System, expected: Any
) -> None:
    for backup_id, files in expected["backups"].items():
        assert await digests(system, backup_id) == files


async def test_backups_of_an_earlier_version_verify_and_take_another(
    system: System, expected: Any, restic: Restic
) -> None:
    async with system.engine() as engine:
        assert (await engine.check(Level.DATA)).findings == ()
        entries = (await engine.backups()).entries
        assert {entry.backup_id for entry in entries} == set(expected["backups"])
        assert {entry.status for entry in entries} == {"completed"}
        for entry in entries:
            assert (await engine.verify(entry.backup_id, Level.RESTORE)).findings == ()
        (system.project).mkdir()
        (system.project / ".env").write_text("TOKEN=new\n")
        await engine.create(CreateRequest())
    judge = restic.at(system.repository, system.password)
    assert "no errors were found" in judge("check", "--read-data")
