"""Who may do what: one table, and the middleware that keeps to it.

    read      lists, status, verification: changes nothing
    backup    adds backups, and proves them
    restore   plans and carries out restores and undos, as far as people agree to them
    admin     everything, and whatever is in no row

Over HTTP the caller's token says which of them it has; on stdio the settings do. `tools/list`
shows what the caller may call; a call outside is refused in words that a model can read.
"""

from collections.abc import Collection, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from mcp import MCPError
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp_types import INVALID_REQUEST

from mcp_backup.errors import NotPermitted
from mcp_backup.settings_server import Scope

TOOLS: Mapping[str, Scope] = {
    "list_backups": "read",
    "backup_status": "read",
    "verify_backup": "read",
    "create_backup": "backup",
    "run_drill": "backup",
    "restore_backup": "restore",
    "undo_restore": "restore",
}
LOCAL = "local"  # the client id of whoever shows no token, where none is needed
_READING = ("resources/", "prompts/", "completion/", "subscriptions/")  # told to `read`

_granted: ContextVar[frozenset[str] | None] = ContextVar("granted", default=None)


def permits(scopes: Collection[str], tool: str) -> bool:
    """Tell whether somebody with these scopes may call a tool."""
    return "admin" in scopes or TOOLS.get(tool, "admin") in scopes


def refuse_outsiders(tool: str) -> None:
    """Refuse a call that the caller's scopes do not cover.

    Where the tools are mounted on somebody else's server, that server decides who may call.

    Raises:
        NotPermitted: they do not cover it.
    """
    scopes = _granted.get()
    if scopes is not None and not permits(scopes, tool):
        raise NotPermitted(tool, TOOLS.get(tool, "admin"), sorted(scopes))


def access_token(request: Any) -> AccessToken | None:
    """Return the token that a message's HTTP request came with."""
    user = request.scope.get("user") if request is not None else None
    return user.access_token if isinstance(user, AuthenticatedUser) else None


def keep_to_scopes(unasked: Iterable[str]) -> ServerMiddleware[Any]:
    """Return the middleware; `unasked` are the scopes of a client that cannot show a token."""
    on_stdio = frozenset(unasked)

    async def keep(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        scopes = _scopes(ctx, on_stdio)
        if ctx.method.startswith(_READING) and not scopes & {"read", "admin"}:
            raise MCPError(INVALID_REQUEST, f"{ctx.method} needs the scope read")
        token = _granted.set(scopes)
        try:
            result = await call_next(ctx)
        finally:
            _granted.reset(token)
        return _permitted(result, scopes) if ctx.method == "tools/list" else result

    return keep


def _scopes(ctx: ServerRequestContext[Any, Any], on_stdio: frozenset[str]) -> frozenset[str]:
    if ctx.request is None:
        return on_stdio
    token = access_token(ctx.request)
    return frozenset(token.scopes) if token else frozenset()


def _permitted(result: HandlerResult, scopes: Collection[str]) -> HandlerResult:
    if not isinstance(result, dict) or "tools" not in result:
        raise TypeError("tools/list answered something else than tools")
    return result | {"tools": [each for each in result["tools"] if permits(scopes, each["name"])]}
