"""What is served beside /mcp, for monitors: /healthz and /metrics. Reading only.

Both open the repository where that failed before, so that health comes back by itself.
The SDK protects /mcp alone, so requests that come from another site's page are refused here: by
their Host in the middleware that `http.py` adds to the whole application, by their Origin below.
"""

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mcp_backup.errors import BackupError
from mcp_backup.server.keeper import EngineKeeper

_OPENING_SECONDS = 5.0  # a monitor waits ten at most, and wants an answer even so
Handler = Callable[[Request], Awaitable[Response]]


def add_routes(server: MCPServer[None], keeper: EngineKeeper, names: Sequence[str]) -> None:
    """Add both routes; `names` are the hosts that requests may come from."""

    async def healthz(_: Request) -> Response:
        return await _health(keeper)

    async def metrics(_: Request) -> Response:
        return await _metrics(keeper)

    for path, handler in {"/healthz": healthz, "/metrics": metrics}.items():
        server.custom_route(path, methods=["GET"])(_guarded(handler, names))


def _guarded(handler: Handler, names: Sequence[str]) -> Handler:
    async def guarded(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and not _is_ours(origin, names):
            return Response("Invalid Origin header", 403)
        return await handler(request)

    return guarded


def _is_ours(origin: str, names: Sequence[str]) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == "http" and (parts.hostname or "") in {name.strip("[]") for name in names}


async def _health(keeper: EngineKeeper) -> Response:
    """Answer 200 unless backups are failing; also where the engine cannot say how they are."""
    module = await to_thread.run_sync(import_module, "mcp_backup.status")  # loads the engine's
    try:
        with anyio.fail_after(_OPENING_SECONDS):
            report = await module.status(await keeper.engine(), around=False)
    except TimeoutError:
        return JSONResponse({"status": "starting"}, 503)
    except BackupError as error:
        return JSONResponse({"status": "unavailable", "code": error.code}, 503)
    answer = {"status": report.health, "reasons": list(report.reasons)}
    return JSONResponse(answer, 503 if report.health == "failing" else 200)


async def _metrics(keeper: EngineKeeper) -> Response:
    module = await to_thread.run_sync(import_module, "mcp_backup.metrics")
    try:
        with anyio.fail_after(_OPENING_SECONDS):
            text = module.exposition(await module.measured(await keeper.engine()))
    except TimeoutError:
        text = module.unopened("starting")
    except BackupError as error:
        text = module.unopened(error.code)
    return Response(text, media_type=module.CONTENT_TYPE)
