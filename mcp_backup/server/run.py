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
from mcp_backup.server.keeper import EngineKeeper, opening_of
from mcp_backup.server.logs import log_to_stderr
from mcp_backup.settings import Settings

logger = logging.getLogger(__name__)


def serve_stdio(settings: Settings) -> None:
    """Serve one client on standard input and output until it closes them, or a signal comes.

    Calls under way are cancelled then; a signal ends the process with status 0, a second one
    at once.
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
    async with anyio.create_task_group() as tasks:
        await tasks.start(_exit_on_signal, tasks.cancel_scope, keeper)
        await server.run_stdio_async()
        tasks.cancel_scope.cancel()


async def _exit_on_signal(
    serving: anyio.CancelScope, keeper: EngineKeeper, *, task_status: TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        number = await anext(signals)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    serving.cancel()
    with anyio.CancelScope(shield=True):
        await keeper.ended()
    logger.info("stopped by %s", number.name)
    logging.shutdown()
    os._exit(0)
