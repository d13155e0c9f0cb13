"""What is served beside /mcp, for monitors: /healthz and /metrics. Reading only.

Both open the repository where that failed before, so that health comes back by itself. /metrics
needs a token with the scope read where /mcp needs one; /healthz answers without in one word.
"""

from importlib import import_module

import anyio
from anyio import to_thread
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mcp_backup.errors import BackupError
from mcp_backup.server.keeper import EngineKeeper

_OPENING_SECONDS = 5.0  # a monitor waits ten at most, and wants an answer even so


def add_routes(server: MCPServer[None], keeper: EngineKeeper) -> None:
    """Add both routes."""

    async def healthz(request: Request) -> Response:
        answer, status = await _health(keeper)
        if not _may_read(request):
            answer = {"status": "ok" if status == 200 else "failing"}
        return JSONResponse(answer, status)

    async def metrics(request: Request) -> Response:
        if not _may_read(request):
            return JSONResponse({"error": "insufficient_scope", "scope": "read"}, 403)
        return await _metrics(keeper)

    for path, handler in {"/healthz": healthz, "/metrics": metrics}.items():
        server.custom_route(path, methods=["GET"])(handler)


def _may_read(request: Request) -> bool:
    return bool({"read", "admin"} & set(request.auth.scopes))


async def _health(keeper: EngineKeeper) -> tuple[dict[str, object], int]:
    """Answer 200 unless backups are failing; also where the engine cannot say how they are."""
    module = await to_thread.run_sync(import_module, "mcp_backup.status")  # loads the engine's
    try:
        with anyio.fail_after(_OPENING_SECONDS):
            report = await module.status(await keeper.engine(), around=False)
    except TimeoutError:
        return {"status": "starting"}, 503
    except BackupError as error:
        return {"status": "unavailable", "code": error.code}, 503
    answer = {"status": report.health, "reasons": list(report.reasons)}
    return answer, 503 if report.health == "failing" else 200


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
