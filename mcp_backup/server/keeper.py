"""The one engine of a server, for as long as the server runs.

A server must start and answer even when its repository cannot be opened, so that an agent can
tell the person why. The engine is opened by a task of its own: when it is first asked for, or
soon after the start; and, where that failed, again at the next call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from mcp_backup.errors import BackupError

if TYPE_CHECKING:
    from mcp_backup.engine import Engine
    from mcp_backup.settings import Settings

_HANDSHAKE_SECONDS = 0.5  # a client's first questions come first; they need no engine

Opening = Callable[[], AbstractAsyncContextManager["Engine"]]
EngineSource = Callable[[], Awaitable["Engine"]]


def opening_of(settings: "Settings") -> Opening:
    """Return what opens the engine on some settings.

    The engine's modules take a tenth of a second to load. They are loaded when it is opened, and
    beside the event loop, so that no client waits for them in vain.
    """

    @asynccontextmanager
    async def opening() -> AsyncIterator["Engine"]:
        root = await to_thread.run_sync(import_module, "mcp_backup.opening")
        async with root.opened(settings) as engine:
            yield engine

    return opening


class EngineKeeper:
    """Opens an engine and keeps it for the tools; used inside one event loop."""

    def __init__(self, opening: Opening) -> None:
        """Keep what `opening` opens."""
        self._opening = opening
        self._state: Engine | BackupError | None = None
        self._settled = anyio.Event()
        self._asked = anyio.Event()
        self._running = False
        self._ended = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the engine for the duration of the block; it is closed when the block is left.

        Calls that are cancelled together with the block find the engine open until they have
        ended, since only leaving the block closes it.
        """
        self._running = True
        try:
            async with anyio.create_task_group() as tasks:
                keeping: anyio.CancelScope = await tasks.start(self._keep)
                try:
                    yield
                finally:
                    keeping.cancel()
        finally:
            self._running, self._state = False, None
            self._settled, self._asked = anyio.Event(), anyio.Event()
            self._ended.set()
            self._ended = anyio.Event()

    async def _keep(self, *, task_status: TaskStatus[anyio.CancelScope]) -> None:
        with anyio.CancelScope(shield=True) as keeping:
            task_status.started(keeping)
            with anyio.move_on_after(_HANDSHAKE_SECONDS):
                await self._asked.wait()
            while True:
                self._asked = anyio.Event()
                try:
                    async with self._opening() as engine:
                        self._settle(engine)
                        await anyio.sleep_forever()
                except BackupError as error:
                    self._settle(error)
                await self._asked.wait()

    def _settle(self, state: "Engine | BackupError") -> None:
        self._state = state
        self._settled.set()

    async def engine(self) -> "Engine":
        """Return the engine, once it is open; try again to open it where that failed before.

        Raises:
            BackupError: it cannot be opened.
        """
        if isinstance(self._state, BackupError):
            self._state, self._settled = None, anyio.Event()
        self._asked.set()
        await self._settled.wait()
        if isinstance(self._state, BackupError):
            raise self._state.with_traceback(None)
        assert self._state is not None
        return self._state

    @property
    def state(self) -> "Engine | BackupError | None":
        """The engine, why it could not be opened, or None while it is being opened."""
        return self._state

    async def ended(self) -> None:
        """Wait until the engine is closed; return at once where it never was kept."""
        if self._running:
            await self._ended.wait()
