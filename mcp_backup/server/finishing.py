"""Finishing a backup that was asked for by a client that has gone since.

A client on stdio that closes its end has not said that it no longer wants the backup: it gets a
while to finish. A client that cancels has, and is obeyed at once. Over HTTP there is nothing to
do here: by the 2025 protocol a lost connection ends no call, by that of 2026 it is the cancel.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
from anyio import lowlevel
from mcp.server.mcpserver import Context

from mcp_backup.errors import BackupError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Finishing:
    """How long calls may outlive their client, in seconds. One event loop's."""

    def __init__(self, patience: float) -> None:
        """Nothing is under way yet."""
        self._patience = patience
        self._scopes: set[anyio.CancelScope] = set()

    def stop(self) -> None:
        """Stop what is under way, with a client or without."""
        for scope in self._scopes:
            scope.cancel()

    async def run(self, work: Callable[[], Awaitable[T]], unwanted: anyio.Event, subject: str) -> T:
        """Do the work, to its end if the call is cancelled while it is not `unwanted`."""
        results: list[T] = []
        failures: list[BackupError] = []
        left = False
        done = anyio.Event()

        async def limit(running: anyio.CancelScope) -> None:
            nonlocal left
            try:
                await anyio.sleep_forever()
            finally:
                if unwanted.is_set():
                    running.cancel()
                elif not done.is_set() and not running.cancel_called:
                    left = True
                    running.deadline = anyio.current_time() + self._patience
                    logger.info("the client has gone; its %s goes on", subject)

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope(shield=True) as running:
                self._scopes.add(running)
                tasks.start_soon(limit, running)
                try:
                    results.append(await work())
                except BackupError as error:  # as itself, and not in a group
                    failures.append(error)
                finally:
                    self._scopes.discard(running)
            done.set()
            tasks.cancel_scope.cancel()
        if left and running.cancelled_caught:
            logger.warning("stopped without its client, nothing of it is kept: %s", subject)
        elif left:
            logger.info("finished without its client: %s", subject)
        await lowlevel.checkpoint()  # nobody waits for the answer of a call that was cancelled
        for failure in failures:
            raise failure
        return results[0]


finishing: ContextVar[Finishing | None] = ContextVar("finishing", default=None)


async def finished(context: Context[Any, Any], work: Callable[[], Awaitable[T]], subject: str) -> T:
    """Do the work of a call, where that is how this server does it even if its client leaves."""
    how = finishing.get()
    if how is None:
        return await work()
    # The SDK has no public way yet to tell a cancel from a client that left.
    unwanted: anyio.Event = context.session._request_outbound.cancel_requested
    return await how.run(work, unwanted, subject)
