"""Serving over streamable HTTP, on this machine only."""

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from anyio.abc import TaskStatus
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mcp_backup.errors import SettingsInvalid
from mcp_backup.server.app import build_server
from mcp_backup.server.keeper import EngineKeeper, opening_of
from mcp_backup.server.logs import log_to_stderr
from mcp_backup.server.routes import add_routes
from mcp_backup.settings import Settings

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 1  # for calls under way when a signal comes; then they are cancelled
_NAMES = ("127.0.0.1", "localhost", "[::1]")  # a Host that no other site's name can resolve to


def serve_http(settings: Settings, host: str, port: int) -> None:
    """Serve clients at http://host:port/mcp until a signal comes; port 0 takes a free one.

    Raises:
        SettingsInvalid: `host` is not this machine's alone, or the port cannot be had.
    """
    log_to_stderr()
    keeper = EngineKeeper(opening_of(settings))
    with _listening(host, port) as listener:
        where = f"{host}:{listener.getsockname()[1]}"
        logger.info("serving at http://%s/mcp", where)
        server = build_server(keeper, scheduled=settings.schedule.enabled, alerted=settings)
        anyio.run(_serve, http_app(server, keeper), listener)


def http_app(server: MCPServer[None], keeper: EngineKeeper) -> Starlette:
    """Return the ASGI application: /mcp, and what `routes.py` has for monitors.

    Requests whose Host or Origin is another site's are refused.
    """
    add_routes(server, keeper, _NAMES)
    app = server.streamable_http_app(
        transport_security=TransportSecuritySettings(
            allowed_hosts=[f"{name}:*" for name in _NAMES],
            allowed_origins=[f"http://{name}:*" for name in _NAMES],
        )
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_NAMES), www_redirect=False)
    return app


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise SettingsInvalid(
            f"the server would listen on {host}, which other machines can reach",
            hint="Use 127.0.0.1; access tokens, which serving others needs, follow in a later "
            "version. Until then reach it through an SSH tunnel.",
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        listener = socket.create_server((str(address), port), family=family)
    except OSError as error:
        raise SettingsInvalid(
            f"cannot listen on {host}, port {port}: {error.strerror}",
            hint="Choose another port with --port or `server.port`; 0 takes a free one.",
        ) from error
    with listener:
        yield listener


class _Server(uvicorn.Server):
    """Uvicorn, leaving signals to us: its own handling ends the process before we are done."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(app: Starlette, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    server = _Server(config)
    async with anyio.create_task_group() as tasks:
        await tasks.start(_stop_on_signal, server)
        await server.serve(sockets=[listener])
        tasks.cancel_scope.cancel()


async def _stop_on_signal(server: uvicorn.Server, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            logger.info("stopping on %s", number.name)
            server.should_exit = True
