"""Staging the latest backup's database, and nothing else."""

import asyncio
import os
from pathlib import Path

from mcp_backup.format.tree import Node
from mcp_backup.opening import opened
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.repository.reader import stage_file
from mcp_backup.repository.repository import Repository
from mcp_backup.settings import load_settings
from mcp_backup.workers import forking


async def _staged(config: Path, out: Path) -> None:
    async with (
        forking(SEALING),
        opened(load_settings(config, os.environ, Path.cwd())) as engine,
        sealing_pool(engine.repository.key) as pool,
    ):
        pool.begin()  # as a restore of something large does
        await engine.index_cache.load(trusted=True)
        backup = await engine.catalog.find("latest")
        node = await engine.catalog.tree(backup, "databases/memory")
        file = await _only_file(engine.repository, node)
        assert file.content is not None
        await stage_file(engine.repository, pool, file.content, out)


async def _only_file(repository: Repository, node: Node) -> Node:
    assert node.subtree is not None
    (file,) = await repository.load_tree(node.subtree)
    return file


def main(config: Path, out: Path) -> None:
    """Stage into the new file `out`."""
    out.touch()
    asyncio.run(_staged(config, out))
