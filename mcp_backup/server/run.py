"""Serving on standard input and output, and stopping cleanly.

A client ends the server by closing its input, and signals it when that takes too long. The SDK's
reader sits in a thread that only input can wake, so after a signal the process does not wait for
it: it cancels the calls, waits until the engine is closed, and exits.
"""

import logging
import os
import signal

import anyio
from anyio.abc import TaskStatus
from mcp.server.mcpserver import MCPServer

from mcp_backup.server.app import build_server
from mcp_backup.server.finishing import Finishing, finishing
from mcp_backup.server.keeper import EngineKeeper, opening_of
from mcp_backup.server.logs import log_to_stderr
from mcp_backup.settings import Settings

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 20.0  # as the schedule's: what a backup gets whose client has gone


def serve_stdio(settings: Settings) -> None:
    """Serve one client on standard input and output until it closes them, or a signal comes.

    Calls under way are cancelled then, but a backup whose client has gone gets a while to finish.
    A signal stops that too, and ends the process with status 0; a second one at once.
    """
    log_to_stderr()
    keeper = EngineKeeper(opening_of(settings))
    try:
        server = build_server(
            keeper,
            scheduled=settings.schedule.enabled,
            alerted=settings,
            server=settings.server,
        )
        anyio.run(_serve, server, keeper)
    except* BrokenPipeError:
        logger.info("the client has gone")


async def _serve(server: MCPServer[None], keeper: EngineKeeper) -> None:
    how = Finishing(_PATIENCE_SECONDS)
    finishing.set(how)
    async with anyio.create_task_group() as tasks:
        await tasks.start(_exit_on_signal, tasks.cancel_scope, keeper, how)
        await server.run_stdio_async()
        tasks.cancel_scope.cancel()


async def _exit_on_signal(
    serving: anyio.CancelScope,
    keeper: EngineKeeper,
    how: Finishing,
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        number = await anext(signals)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    serving.cancel()
    how.stop()
    with anyio.CancelScope(shield=True):
        await keeper.ended()
    logger.info("stopped by %s", number.name)
    logging.shutdown()
    os._exit(0)
