"""Serving over streamable HTTP: on this machine only, unless tokens and names say otherwise."""

import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from anyio.abc import TaskStatus
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from mcp_backup.errors import SettingsInvalid
from mcp_backup.place import utc_now
from mcp_backup.server.access import TokenBackend, admitting, metadata
from mcp_backup.server.app import build_server
from mcp_backup.server.guard import LARGEST_BODY, LOOPBACK, Guard, ImpatientProtocol
from mcp_backup.server.keeper import EngineKeeper, opening_of
from mcp_backup.server.logs import log_to_stderr
from mcp_backup.server.routes import add_routes
from mcp_backup.settings import Settings
from mcp_backup.settings_server import ServerSettings
from mcp_backup.tokens import TokenStore

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 1  # for calls under way when a signal comes; then they are cancelled
_SESSIONS = 1000  # of the 2025 protocol; those that are idle for half an hour end
_CONNECTIONS = 1000  # more are answered with 503


def serve_http(settings: Settings, host: str, port: int) -> None:
    """Serve clients at http://host:port/mcp until a signal comes; port 0 takes a free one.

    Raises:
        SettingsInvalid: others could reach it and nothing says who may, the port cannot be had,
            or the certificate cannot be used.
    """
    log_to_stderr()
    server = settings.server
    tokens = TokenStore(settings.state_dir, utc_now)
    exposed = _exposed(host, server)
    if exposed:
        _refuse_unguarded(exposed, server, tokens)
    keeper = EngineKeeper(opening_of(settings))
    with _listening(host, port) as listener:
        scheme = "https" if server.tls_cert else "http"
        logger.info("serving at %s://%s:%s/mcp", scheme, host, listener.getsockname()[1])
        if exposed and not (server.tls_cert or server.trusted_proxies):
            logger.warning("tokens are sent in the clear: set server.tls_cert and server.tls_key")
        built = build_server(
            keeper, scheduled=settings.schedule.enabled, alerted=settings, server=server
        )
        backend = TokenBackend(tokens, server.oauth, None if exposed else server.scopes)
        anyio.run(_serve, http_app(built, keeper, server, backend), listener, server)


def http_app(
    built: MCPServer[None], keeper: EngineKeeper, server: ServerSettings, backend: TokenBackend
) -> ASGIApp:
    """Return the ASGI application: /mcp, and what `routes.py` has for monitors.

    Every request gets past the guard first, and then has to say who it comes from.
    """
    add_routes(built, keeper)
    app = built.streamable_http_app(
        max_request_body_size=LARGEST_BODY,
        max_sessions=_SESSIONS,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    metadata_url, routes = metadata(server.oauth)
    app.router.routes.extend(routes)
    guarded: ASGIApp = Guard(
        admitting(app, backend, metadata_url),
        (*LOOPBACK, *server.allowed_hosts),
        server.allowed_origins,
    )
    if server.trusted_proxies:
        return ProxyHeadersMiddleware(guarded, trusted_hosts=list(server.trusted_proxies))  # type: ignore[arg-type,return-value]
    return guarded


def _exposed(host: str, server: ServerSettings) -> str:
    """Say how others can reach the server; "" when this machine alone can."""
    if not _address(host).is_loopback:
        return f"the server would listen on {host}, which other machines can reach"
    if server.allowed_hosts or server.trusted_proxies:
        return "`server.allowed_hosts` or `server.trusted_proxies` let others reach the server"
    return ""


def _refuse_unguarded(exposed: str, server: ServerSettings, tokens: TokenStore) -> None:
    missing = []
    if not tokens.tokens() and server.oauth is None:
        missing.append(
            "access tokens (run `mcp-backup token create --name NAME --scope read`, or configure "
            "[server.oauth])"
        )
    if not server.allowed_hosts:
        missing.append("the names it is reached under, in `server.allowed_hosts`")
    if missing:
        raise SettingsInvalid(
            f"{exposed}, and it is not guarded",
            hint=f"It needs {' and '.join(missing)}. Or use 127.0.0.1 and an SSH tunnel.",
        )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise SettingsInvalid(
            f"the server would listen on {host}, which may be an address that other machines can "
            "reach",
            hint="Name an address of this machine, such as 127.0.0.1; names that clients use "
            "belong in `server.allowed_hosts`.",
        ) from None


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    address = _address(host)
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


async def _serve(app: ASGIApp, listener: socket.socket, server: ServerSettings) -> None:
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # ours are from the proxies that the settings name
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
        ssl_certfile=server.tls_cert,
        ssl_keyfile=server.tls_key,
    )
    running = _Server(_loaded(config, server))
    async with anyio.create_task_group() as tasks:
        await tasks.start(_stop_on_signal, running)
        await running.serve(sockets=[listener])
        tasks.cancel_scope.cancel()


def _loaded(config: uvicorn.Config, server: ServerSettings) -> uvicorn.Config:
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsInvalid(
            f"the certificate {server.tls_cert} cannot be used with the key {server.tls_key}: "
            f"{error.strerror or type(error).__name__}",
            hint="`server.tls_cert` is a PEM file of the certificate and those above it, "
            "`server.tls_key` of its private key, without a passphrase.",
        ) from error
    return config


async def _stop_on_signal(server: uvicorn.Server, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            logger.info("stopping on %s", number.name)
            server.should_exit = True
