"""Drills that must fail: each kind of damage is found, and named."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from mcp_backup.drill_facts import DrillReport, DrillRequest
from mcp_backup.manifest import Manifest, SourceRecord
from mcp_backup.proof.drill import drill, ledger_of
from mcp_backup.status import status
from mcp_backup.verbs import CreateRequest
from tests.proof.conftest import found, outcomes, rewritten
from tests.sources.vectors import make_vectors
from tests.system import System

NEWEST = DrillRequest(scenario="single-server")


def data_pack(system: System) -> Path:
    """The largest pack: what the databases are in."""
    packs = (path for path in (system.repository / "data").rglob("*") if path.is_file())
    return max(packs, key=lambda path: path.stat().st_size)


async def drilled(system: System, request: DrillRequest = NEWEST) -> DrillReport:
    """Drill, and see that status and evidence say what became of it."""
    async with system.engine() as engine:
        report = await drill(engine, request)
        assert report.outcome == "failed"
        assert (await ledger_of(engine).read()).records[-1].drill == report
        (run, *_) = await engine.history.runs(verb="drill")
        assert run.outcome == "findings"
        stood = await status(engine, around=False)
        assert stood.health == "failing"
        assert any("the last drill" in reason for reason in stood.reasons)
    assert list(system.settings.scratch.iterdir()) == []
    return report


async def test_a_flipped_byte_in_a_pack(system: System) -> None:
    pack = data_pack(system)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    report = await drilled(system, DrillRequest())
    damaged = [each for each in report.every_finding() if each.code == "integrity"]
    assert damaged
    assert pack.name[:8] in damaged[0].message


async def test_a_missing_pack(system: System) -> None:
    pack = data_pack(system)
    pack.unlink()
    report = await drilled(system)
    assert {code for _, code in found(report)} <= {"object-missing", "integrity"}
    assert any(pack.name[:8] in each.message for each in report.every_finding())


async def test_a_wrong_key(system: System) -> None:
    async with system.engine() as engine:  # which is open, and would not notice by itself
        (system.root / "backups.key").write_text("another password\n")
        report = await drill(engine, NEWEST)
        assert report.outcome == "failed"
        assert found(report) == {("repository", "wrong-password")}
        assert report.results == ()
        stood = await status(engine, around=False)
    assert stood.health == "failing"
    assert "wrong-password" in stood.reasons[0]


async def test_a_key_that_is_gone(system: System) -> None:
    async with system.engine() as engine:
        (system.root / "backups.key").unlink()
        report = await drill(engine, NEWEST)
    assert found(report) == {("repository", "settings-invalid")}


async def test_a_database_whose_full_text_index_is_damaged_since_before_its_backup(
    system: System,
) -> None:
    with closing(sqlite3.connect(system.notes)) as database, database:
        database.execute("UPDATE search_content SET c0 = 'other' WHERE id = 9")
    async with system.engine() as engine:
        await engine.create(CreateRequest())
    report = await drilled(system)
    assert found(report) == {("notes", "fts")}
    assert outcomes(report)["tasks", "newest"] == "proven"


async def test_a_database_whose_vector_table_is_damaged_and_one_whose_is_not(
    system: System,
) -> None:
    make_vectors(system.tasks)
    make_vectors(system.notes)
    with closing(sqlite3.connect(system.notes)) as database, database:
        database.execute("DELETE FROM memories_vector_chunks00 WHERE rowid = 1")
    async with system.engine() as engine:
        await engine.create(CreateRequest())
    report = await drilled(system)
    (finding,) = report.every_finding()
    assert (finding.source, finding.code, finding.subject) == ("notes", "vectors", "memories")
    assert finding.message == "memories_vector_chunks00 has nothing of chunk 1"
    assert outcomes(report)["tasks", "newest"] == "proven"


def lying(manifest: Manifest, name: str, record: SourceRecord) -> Manifest:
    sources = tuple(record if each.name == name else each for each in manifest.sources)
    return replace(manifest, sources=sources)


def more_rows(manifest: Manifest) -> Manifest:
    (record,) = (each for each in manifest.sources if each.name == "notes")
    assert record.evidence is not None
    facts = dict(record.evidence.facts) | {"tables": {"notes": 999}}
    return lying(manifest, "notes", replace(record, evidence=replace(record.evidence, facts=facts)))


def other_bytes(manifest: Manifest) -> Manifest:
    (record,) = (each for each in manifest.sources if each.name == "tasks")
    assert record.evidence is not None
    (file,) = record.evidence.files
    files = (replace(file, digest=f"segments:{os.urandom(32).hex()}"),)
    return lying(manifest, "tasks", replace(record, evidence=replace(record.evidence, files=files)))


def no_evidence(manifest: Manifest) -> Manifest:
    (record,) = (each for each in manifest.sources if each.name == "notes")
    return lying(manifest, "notes", replace(record, evidence=None))


def no_tree(manifest: Manifest) -> Manifest:
    (record,) = (each for each in manifest.sources if each.name == "notes")
    return lying(manifest, "notes", replace(record, tree="databases/nothing"))


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (more_rows, ("notes", "row-count")),
        (other_bytes, ("tasks", "digest")),
        (no_evidence, ("notes", "no-evidence")),
        (no_tree, ("repository", "integrity")),
    ],
)
async def test_a_manifest_that_lies(
    system: System, lie: Callable[[Manifest], Manifest], expected: tuple[str, str]
) -> None:
    async with system.engine() as engine:
        await rewritten(engine, lie)
    assert expected in found(await drilled(system))


async def test_a_source_that_was_never_backed_up(system: System) -> None:
    another = replace(system.settings.databases[0], name="another")
    databases = (*system.settings.databases, another)
    grown = System(system.root, replace(system.settings, databases=databases))
    assert ("another", "no-backup") in found(await drilled(grown))


async def test_a_snapshot_that_cannot_be_read(system: System) -> None:
    (_, older) = sorted((system.repository / "snapshots").iterdir())
    older.chmod(0o600)
    older.write_bytes(b"no snapshot at all, and long enough to be one" * 4)
    report = await drilled(system)
    assert ("repository", "integrity") in found(report)
