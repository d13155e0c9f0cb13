"""Telling clients that a resource is another one now, whichever of both eras they speak.

Modern clients listen on a stream of their own, which a bus feeds. Older ones are told on their
session, once they have called a tool or read a resource that is told of. What another process did,
the schedule's drill for one, is seen within seconds by looking.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
from mcp.server.mcpserver import Context
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated

from mcp_backup.errors import BackupError
from mcp_backup.server.keeper import EngineKeeper

if TYPE_CHECKING:
    from mcp_backup.engine import Engine

logger = logging.getLogger(__name__)

DRILLS = ("backup://drills", "backup://drills/latest")
MANIFESTS = ("backup://manifests/latest",)
_LEGACY = "2026-07-28"  # sessions of versions before this one are told for themselves
_LOOK_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0  # for a client that does not read

_Seen = tuple[int, int]


class Updates:
    """Who is to be told, and of what."""

    def __init__(self) -> None:
        """Begin with nobody listening."""
        self.bus = InMemorySubscriptionBus()
        self._sessions: WeakSet[Any] = WeakSet()

    def meet(self, context: Context[Any, Any]) -> None:
        """Tell this client from now on, if it has no stream to listen on."""
        if (context.protocol_version or "") < _LEGACY:
            self._sessions.add(context.session)

    async def updated(self, *uris: str) -> None:
        """Tell everybody. Does not fail, and waits for nobody for long."""
        for uri in uris:
            await self.bus.publish(ResourceUpdated(uri=uri))
            for session in list(self._sessions):
                try:
                    with anyio.move_on_after(_PATIENCE_SECONDS):
                        await session.send_resource_updated(uri)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self._sessions.discard(session)

    @asynccontextmanager
    async def watching(self, keeper: EngineKeeper) -> AsyncIterator[None]:
        """Look for what others did, for the duration of the block."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, keeper)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _watch(self, keeper: EngineKeeper) -> None:
        known: _Seen | None = None
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            engine = keeper.state
            if engine is None or isinstance(engine, BackupError):
                continue
            try:
                seen = await _seen(engine)
            except BackupError as error:
                logger.warning("not looked at for updates: %s", error)
                continue
            if known is not None and seen[0] != known[0]:
                await self.updated(*MANIFESTS)
            if known is not None and seen[1] != known[1]:
                await self.updated(*DRILLS)
            known = seen


async def _seen(engine: "Engine") -> _Seen:
    """Return the newest runs that made a backup, and that drilled."""
    newest = []
    for verb in ("create", "drill"):
        runs = await engine.history.runs(verb=verb, limit=5)
        newest.append(next((run.id for run in runs if run.ended is not None), 0))
    return newest[0], newest[1]
