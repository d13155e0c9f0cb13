"""The schedule in a thread, for programs that have no event loop, or another one."""

import atexit
import logging
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack

import anyio
from anyio.from_thread import start_blocking_portal

from mcp_backup.alerts.alerts import Alerts
from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError
from mcp_backup.news import alerting
from mcp_backup.place import utc_now
from mcp_backup.schedule import run_schedule
from mcp_backup.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 60.0  # until a repository that could not be opened is tried again

Opening = Callable[[Settings], AbstractAsyncContextManager[Engine]]


class SchedulerThread:
    """Runs the schedule of some settings, and tells their receivers of alerts what goes wrong.

    From its making until `stop`, or the program's end.
    """

    def __init__(self, settings: Settings, opening: Opening) -> None:
        """Start at once; `opening` opens the engine, in the thread's event loop."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            running = portal.start_task_soon(_keep_running, settings, opening)
            stack.callback(running.cancel)  # before the portal waits for it
            self._stack = stack.pop_all()
        atexit.register(self.stop)  # or a backup under way would be torn out of its thread

    def stop(self) -> None:
        """Stop, after a backup under way has had its time. Stopping again does nothing."""
        atexit.unregister(self.stop)
        self._stack.close()


async def _keep_running(settings: Settings, opening: Opening) -> None:
    told = ""
    alerts = Alerts(settings, utc_now, os.environ)
    while True:
        try:
            async with opening(settings) as engine:

                async def opened(engine: Engine = engine) -> Engine:
                    return engine

                async with alerting(opened, settings):
                    await run_schedule(engine)
        except BackupError as error:
            await alerts.unopened(error)
            await alerts.deliver()
            if str(error) != told:
                logger.error("schedule waits for a repository: [%s] %s", error.code, error)  # noqa: TRY400 - expected, and tried again
            told = str(error)
        await anyio.sleep(_RETRY_SECONDS)
