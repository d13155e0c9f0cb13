"""How much one client may have going on at once. Others' calls go on meanwhile."""

from collections import Counter
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext

from mcp_backup.server.scopes import LOCAL, access_token

TOO_MANY_CALLS = -32000  # JSON-RPC's code for what a server defines itself


def limit_calls(most: int) -> ServerMiddleware[Any]:
    """Return the middleware that refuses a client's tool calls beyond `most` at once.

    A client is whoever holds a token; where none are needed, one session or connection of this
    machine's; on stdio, the one there is.
    """
    running: Counter[str] = Counter()

    async def limited(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        client = _client(ctx)
        if running[client] >= most:
            raise MCPError(
                TOO_MANY_CALLS,
                f"{most} calls of yours are running; wait until one has ended, then call again",
                {"retryable": True},
            )
        running[client] += 1
        try:
            return await call_next(ctx)
        finally:
            running[client] -= 1
            if not running[client]:
                del running[client]

    return limited


def _client(ctx: ServerRequestContext[Any, Any]) -> str:
    if ctx.request is None:
        return ""
    token = access_token(ctx.request)
    if token and token.client_id != LOCAL:
        return token.client_id
    session = ctx.request.headers.get("mcp-session-id", "")
    host, port = ctx.request.client or ("", 0)
    return f"session {session}" if session else f"{host}:{port}"
