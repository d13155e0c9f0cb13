"""One small live system, backed up twice, and copied for each test; and damage done to it."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from mcp_backup.drill_facts import DrillReport
from mcp_backup.engine import Engine
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.tree import encode_tree, file_node
from mcp_backup.manifest import PATH, Manifest
from mcp_backup.repository.locks import locked
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.repository.writer import writing
from mcp_backup.verbs import BackupType, CreateRequest
from tests.system import System, change, make_system, settings_of


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system with two backups of all it has; never changed."""

    async def make(root: Path) -> None:
        system = await make_system(root, rows=50)
        async with system.engine() as engine:
            await engine.create(CreateRequest(BackupType.FULL, note="older"))
            change(system.notes, "between the two")
            await engine.create(CreateRequest(BackupType.FULL, note="newest"))

    root = tmp_path_factory.mktemp("template") / "system"
    asyncio.run(make(root))
    return root


@pytest.fixture
def system(template: Path, tmp_path: Path) -> System:
    """A copy of the template for one test."""
    root = tmp_path / "system"
    shutil.copytree(template, root)
    return System(root, settings_of(root))


def found(report: DrillReport) -> set[tuple[str, str]]:
    """The findings of a drill: source and code."""
    return {(each.source, each.code) for each in report.every_finding()}


def outcomes(report: DrillReport) -> dict[tuple[str, str], str]:
    """What became of each copy, by source and pick."""
    return {(each.source, each.pick): each.outcome for each in report.results}


async def rewritten(engine: Engine, lie: Callable[[Manifest], Manifest]) -> str:
    """Store the newest backup once more, with a manifest that says something else."""
    repository, catalog = engine.repository, engine.catalog
    newest = await catalog.find("latest")
    manifest = await catalog.manifest(newest)
    assert manifest is not None
    document = lie(manifest).encode()
    async with (
        sealing_pool(repository.key) as pool,
        locked(repository),
        writing(repository, pool) as writer,
    ):
        blob = await writer.save(BlobKind.DATA, document)
        nodes = [
            node for node in await repository.load_tree(newest.snapshot.tree) if node.name != PATH
        ]
        nodes.append(file_node(PATH, (blob,), len(document), mode=0o600, mtime_ns=0))
        tree = await writer.save(BlobKind.TREE, encode_tree(nodes))
        await writer.flush()
        lying = replace(newest.snapshot, tree=tree, time=engine.now())
        return (await repository.add_snapshot(lying)).hex()
