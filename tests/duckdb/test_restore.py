"""DuckDB sources through the whole program: what comes back is what was captured, or nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from mcp_backup.doctor import diagnose
from mcp_backup.errors import TargetBusy
from mcp_backup.restore.examining import examined
from mcp_backup.sources.source import Evidence
from mcp_backup.verbs import BackupReport, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.duckdb.ducks import holding, run
from tests.duckdb.system import make_system, memories, system_at
from tests.duckdb.test_capture import newer
from tests.interop.conftest import restic as restic
from tests.system import System

FULL = CreateRequest(verify=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system, backed up; never changed."""

    async def made(root: Path) -> None:
        system = await make_system(root)
        async with system.engine() as engine:
            report = await engine.create(CreateRequest(verify=True))
            assert {outcome.outcome for outcome in report.outcomes} == {"stored"}

    root = tmp_path_factory.mktemp("ducks") / "system"
    root.mkdir()
    anyio.run(made, root)
    return root


@pytest.fixture
def system(template: Path, tmp_path: Path) -> System:
    shutil.copytree(template, tmp_path / "system")
    return system_at(tmp_path / "system")


async def evidence_of(system: System, report: BackupReport) -> dict[str, Evidence]:
    async with system.engine() as engine:
        manifest = await engine.catalog.manifest(await engine.catalog.find(report.backup_id))
        assert manifest is not None
        return {
            record.name: replace(record.evidence, files=(), fingerprint="")
            for record in manifest.sources
            if record.evidence
        }


async def test_captured_restored_and_captured_again_the_evidence_is_equal(
    system: System,
) -> None:
    """Of every type and kind of object, one shard each; of the file with a log, too."""
    async with system.engine() as engine:
        first = await engine.create(FULL)
        run(memories(system.root), "DROP TABLE notes")
        for shard in (system.root / "akosha").rglob("*.duckdb"):
            shard.write_bytes(os.urandom(20_000))
        assert shard
        shutil.rmtree(system.root / "akosha" / "1")
        plan = await engine.plan_restore(RestoreRequest(backup_id=first.backup_id))
        states = {target.source: target.live_state for target in plan.targets}
        assert states["memories"] == "present"
        report = await engine.restore(plan.plan_id, consent=True)
        second = await engine.create(FULL)
        verified = await engine.verify(first.backup_id, Level.RESTORE)
        assert verified.findings == ()
        await engine.undo(report.undo_id, consent=True)
    before, after = await evidence_of(system, first), await evidence_of(system, second)
    assert before == after
    assert before["akosha"].facts["extensions"] == ["fts"]
    assert len(before["akosha"].facts["shards"]) == 6
    assert run(memories(system.root), "SELECT count(*) FROM duckdb_tables()") == [[0]]


async def test_a_restore_is_refused_while_somebody_has_the_file_open(system: System) -> None:
    live = memories(system.root)
    async with system.engine() as engine:
        with holding(live, "INSERT INTO notes VALUES (9001, 'of the holder')") as process:
            plan = await engine.plan_restore(RestoreRequest(databases=("memories",)))
            (target,) = plan.targets
            assert {holder.pid for holder in target.holders} == {process.pid}
            told = {item.subject: item.message for item in await diagnose(engine)}
            assert told["databases memories"].endswith("are made, open in 1 process")
            with pytest.raises(TargetBusy, match=f"pid {process.pid}"):
                await engine.restore(plan.plan_id, consent=True)
        assert await engine.restores() == []
    assert run(live, "SELECT count(*) FROM notes") == [[2002]]


async def test_a_file_of_a_newer_duckdb_goes_through_backup_and_restore(system: System) -> None:
    live = memories(system.root)
    run(live, "CHECKPOINT")
    content = newer(live).read_bytes()
    async with system.engine() as engine:
        report = await engine.create(CreateRequest(databases=("memories",), verify=True))
        assert report.status == "completed"
        verified = await engine.verify(report.backup_id, Level.RESTORE)
        assert verified.findings == ()  # known from the backup itself
        live.write_bytes(b"")
        plan = await engine.plan_restore(RestoreRequest(databases=("memories",)))
        await engine.restore(plan.plan_id, consent=True)
    assert live.read_bytes() == content


async def test_a_log_that_was_not_captured_is_found_beside_a_copy(
    system: System, tmp_path: Path
) -> None:
    """It would be replayed over the copy, whose own bytes are what they were."""
    async with system.engine() as engine:
        manifest = await engine.catalog.manifest(await engine.catalog.find("latest"))
    assert manifest is not None
    (record,) = (each for each in manifest.sources if each.name == "memories")
    assert record.evidence is not None
    (tmp_path / "staged").mkdir()
    for file in record.evidence.files:
        shutil.copy2(system.root / file.path, tmp_path / "staged" / file.path)
    assert await examined(record, tmp_path / "staged") == []
    fewer = replace(record.evidence, files=record.evidence.files[:1])
    (found,) = await examined(replace(record, evidence=fewer), tmp_path / "staged")
    assert (found.code, found.subject) == ("extra", "memories.duckdb.wal")


def test_a_bare_restic_gives_back_file_and_log(
    system: System, tmp_path: Path, restic: object
) -> None:
    words = ["restic", "restore", "latest", "--target", str(tmp_path / "rescued")]
    environment = {**os.environ, **system.restic}
    subprocess.run(words, env=environment, check=True, capture_output=True)
    rescued = tmp_path / "rescued" / "databases" / "memories" / "memories.duckdb"
    for name in ("memories.duckdb", "memories.duckdb.wal"):
        assert rescued.with_name(name).read_bytes() == (system.root / name).read_bytes()
    assert run(rescued, "SELECT count(*) FROM notes") == [[2001]]
