"""Telling of what goes wrong: for as long as something runs, or after one call.

What is told comes from the history and the status, so it does not matter which process ran what.
"""

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from mcp_backup.alerts.alerts import Alerts
from mcp_backup.errors import BackupError
from mcp_backup.place import utc_now
from mcp_backup.settings import Settings

if TYPE_CHECKING:
    from mcp_backup.engine import Engine

logger = logging.getLogger(__name__)

Opening = Callable[[], AbstractAsyncContextManager["Engine"]]
EngineSource = Callable[[], Awaitable["Engine"]]

_HANDSHAKE_SECONDS = 2.0  # a client's first questions come first
_LOOK_SECONDS = 15.0  # how late news may be
_JUDGE_EVERY = 20  # looks between two at what is overdue: five minutes
_RETRY_SECONDS = 60.0
_TOLERATED = 2  # failures to open: once may be a disk that is being plugged in
_PATIENCE_SECONDS = 10.0  # how much later a command may end; the next one tries again
_NEWEST = 100  # runs looked at


@asynccontextmanager
async def alerting(engine: EngineSource, settings: Settings) -> AsyncIterator[None]:
    """Tell the settings' receivers what goes wrong while the block runs.

    What is not delivered when the block is left waits for the next process.
    """
    if not settings.alerts:
        yield
        return
    alerts = Alerts(settings, utc_now, os.environ)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alerts.keep_delivering)
        tasks.start_soon(_keep_looking, engine, alerts)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


def alerted(opening: Opening, settings: Settings, *, alone: bool) -> Opening:
    """Return what opens the engine for one command or call, and tells what came to light in it.

    `alone`: nobody is at the terminal to read that the repository cannot be opened.
    """
    alerts = Alerts(settings, utc_now, os.environ)

    @asynccontextmanager
    async def opened() -> AsyncIterator["Engine"]:
        engine: Engine | None = None
        try:
            async with opening() as engine:
                try:
                    yield engine
                finally:
                    with anyio.move_on_after(_PATIENCE_SECONDS, shield=True):
                        await _tell(engine, alerts)
        except BackupError as error:
            if engine is None and alone:
                await alerts.unopened(error)
                with anyio.move_on_after(_PATIENCE_SECONDS):
                    await alerts.deliver()
            raise

    return opened


async def _tell(engine: "Engine", alerts: Alerts) -> None:
    try:
        await look(engine, alerts, judge=False)
    except BackupError as error:
        logger.warning("not looked at for alerts: %s", error)
    if alerts.has_news:
        await alerts.deliver()


async def _keep_looking(engine: EngineSource, alerts: Alerts) -> None:
    await anyio.sleep(_HANDSHAKE_SECONDS)
    failures, looks = 0, 0
    while True:
        try:
            await look(await engine(), alerts, judge=looks % _JUDGE_EVERY == 0)
        except BackupError as error:
            failures += 1
            if failures >= _TOLERATED:
                await alerts.unopened(error)
            await anyio.sleep(_RETRY_SECONDS)
        else:
            failures, looks = 0, looks + 1
            await anyio.sleep(_LOOK_SECONDS)


async def look(engine: "Engine", alerts: Alerts, *, judge: bool) -> None:
    """Tell what the history has that is new and, with `judge`, what is overdue.

    Raises:
        BackupError: the history or the repository cannot be read.
    """
    await alerts.follow(await engine.history.runs(limit=_NEWEST))
    if judge:
        module = await to_thread.run_sync(import_module, "mcp_backup.status")  # loads the engine's
        await alerts.check(await module.status(engine, around=False))
    await alerts.opened()
