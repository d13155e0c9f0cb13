"""The schedule, for as long as a server runs and has a repository."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import anyio
from anyio import to_thread

from mcp_backup.errors import BackupError
from mcp_backup.server.keeper import EngineKeeper

logger = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 1.0  # a client's first questions come first
_RETRY_SECONDS = 60.0  # until a repository that could not be opened is tried again


@asynccontextmanager
async def scheduling(keeper: EngineKeeper) -> AsyncIterator[None]:
    """Run the schedule on the keeper's engine; use it within `keeper.running()`.

    Leaving the block waits for a backup under way, a while; see `run_schedule`.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep_running, keeper)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def _keep_running(keeper: EngineKeeper) -> None:
    await anyio.sleep(_HANDSHAKE_SECONDS)
    schedule = await to_thread.run_sync(
        import_module, "mcp_backup.schedule", abandon_on_cancel=True
    )
    told = ""
    while True:
        try:
            await schedule.run_schedule(await keeper.engine())
        except BackupError as error:
            if str(error) != told:
                logger.warning("schedule waits for a repository: [%s] %s", error.code, error)
            told = str(error)
        else:
            return
        await anyio.sleep(_RETRY_SECONDS)
