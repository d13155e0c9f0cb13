"""Checking: the whole repository, in the worker processes where bytes are read."""

from typing import TYPE_CHECKING

from mcp_backup.progress import Listener
from mcp_backup.repository.check import check
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.pack_examining import in_pool
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.verbs import CheckReport, Level
from mcp_backup.workers import forking

if TYPE_CHECKING:
    from mcp_backup.engine import Engine


async def check_repository(engine: "Engine", level: Level, listener: Listener) -> CheckReport:
    """Check the whole repository; see `Engine.check`."""
    repository = engine.repository
    async with forking(SEALING), sealing_pool(repository.key) as pool:
        if level is not Level.STRUCTURE:
            pool.begin()  # while locks and index files are read
        async with locked(repository, wait=PATIENCE_SECONDS):
            return await check(repository, level, listener, examine=in_pool(repository, pool))
