"""call: a tool, called as an agent would, on a running server or in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
import httpx2
import typer
from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

from mcp_backup.cli.flags import described, tool_arguments
from mcp_backup.cli.restores import agreed_plan
from mcp_backup.cli.session import Session, session
from mcp_backup.errors import ApprovalRequired, BackupError, ServerUnreachable, UsageError
from mcp_backup.opening import opened
from mcp_backup.progress import Progress
from mcp_backup.server.app import build_server
from mcp_backup.server.closed import ERROR_META
from mcp_backup.server.keeper import EngineKeeper
from mcp_backup.terminal_progress import progress_bars

T = TypeVar("T")
_FAILED = 1
_TIMEOUT = httpx2.Timeout(30, read=300)  # the SDK's own; a ping comes every 15 seconds
_BROKEN = (httpx2.HTTPError, MCPError, OSError)


def call(
    context: typer.Context,
    tool: Annotated[str, typer.Argument(help="The tool; without, list them.")] = "",
    *,
    url: Annotated[
        str,
        typer.Option(envvar="MCP_BACKUP_URL", help="A running server; else in this process."),
    ] = "",
) -> int:
    """Call a tool as an agent would: --name value for each of its arguments."""
    this = session(context)

    if not tool:
        tools = _interruptible(this, partial(_all_tools, this, url))
        this.terminal.result(tools, list(_listed(tools)))
        return 0
    result = _interruptible(this, partial(_called, this, url, tool, context.args))
    plan_id = "" if _is_dry(context.args) else _waiting_plan(result)
    if plan_id:
        _have_agreed(this, plan_id, result)
        again = ["--plan_id", plan_id]
        result = _interruptible(this, partial(_called, this, url, tool, again))
    return _answered(this, result)


def _interruptible(this: Session, work: Callable[[], Awaitable[T]]) -> T:
    return this.interruptible(
        lambda: anyio.run(work),
        unfinished="The server was told to stop; ask it with list_backups what is there.",
    )


async def _all_tools(this: Session, url: str) -> ListToolsResult:
    async with _client(this, url) as client:
        return await client.list_tools()


async def _called(this: Session, url: str, tool: str, words: Sequence[str]) -> CallToolResult:
    async with _client(this, url) as client:
        chosen = _chosen(await client.list_tools(), tool)
        arguments = tool_arguments(chosen.name, chosen.input_schema, words)
        with progress_bars(this.terminal) as listener:

            async def report(progress: float, total: float | None, message: str | None) -> None:
                await listener(Progress(chosen.name, "", int(progress), int(total or 0)))

            return await client.call_tool(chosen.name, arguments, progress_callback=report)


def _is_dry(words: Sequence[str]) -> bool:
    return any(word.replace("_", "-").startswith("--dry-run") for word in words)


def _waiting_plan(result: CallToolResult) -> str:
    """Return the plan that was answered and that a person has to approve; "" for all else."""
    facts = result.structured_content or {}
    waits = facts.get("status") == "planned" and facts.get("approval") in ("human", "elicit")
    return str(facts["plan_id"]) if waits and not result.is_error else ""


def _have_agreed(this: Session, plan_id: str, result: CallToolResult) -> None:
    """Have the person at this terminal agree to a plan.

    Raises:
        ApprovalRequired: nobody is here to ask, or the plan is another machine's; it was printed.
        RestoreDeclined: they did not agree.
    """
    try:
        agreed_plan(this, plan_id)
    except UsageError:  # neither settings nor the plan are here
        _answered(this, result)
        raise ApprovalRequired(plan_id) from None


@asynccontextmanager
async def _client(this: Session, url: str) -> AsyncIterator[Client]:
    """Connect; what goes wrong underneath is told as what it is.

    Raises:
        ServerUnreachable: nobody answers, or not in MCP.
    """
    try:
        async with AsyncExitStack() as stack:
            server = await _server(this, url, stack)
            yield await stack.enter_async_context(Client(server))
    except (*_BROKEN, BaseExceptionGroup) as error:
        for leaf in _leaves(error):
            if isinstance(leaf, BackupError):
                raise leaf from None
            if isinstance(leaf, _BROKEN):
                raise ServerUnreachable(url or "this process", str(leaf)) from error
        raise


async def _server(this: Session, url: str, stack: AsyncExitStack) -> Any:
    """Return what to connect to: the running server, with our token if there is one, or our own."""
    if not url:
        settings = this.settings()
        return build_server(EngineKeeper(partial(opened, settings)), server=settings.server)
    token = this.surroundings.environ.get("MCP_BACKUP_TOKEN")
    if not token:
        return url
    headers = {"Authorization": f"Bearer {token}"}
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT))
    return streamable_http_client(url, http_client=http)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _chosen(tools: ListToolsResult, name: str) -> Tool:
    names = {tool.name: tool for tool in tools.tools}
    names |= {tool.name.replace("_", "-"): tool for tool in tools.tools}
    if name not in names:
        known = ", ".join(tool.name for tool in tools.tools)
        raise UsageError(f"there is no tool {name!r}", hint=f"There are: {known}.")
    return names[name]


def _listed(tools: ListToolsResult) -> Iterator[str]:
    for tool in tools.tools:
        yield f"{tool.name}: {(tool.description or '').splitlines()[0]}"
        yield from described(tool.name, tool.input_schema)


def _answered(this: Session, result: CallToolResult) -> int:
    """Print the answer: text for people, the structured content for programs."""
    text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    if not result.is_error:
        this.terminal.result(result.structured_content or {"text": text}, text.splitlines())
        return 0
    facts = (result.meta or {}).get(ERROR_META, {})
    code, hint = facts.get("code", "tool-error"), facts.get("hint", "")
    message = text.removeprefix(f"[{code}] ").removesuffix(hint).rstrip(". ")
    this.terminal.error(code, message, hint)
    return _exit_codes(BackupError).get(code, _FAILED)


def _exit_codes(error: type[BackupError]) -> dict[str, int]:
    """Return the exit code of every error code in the tree."""
    codes = {error.code: error.exit_code}
    for each in error.__subclasses__():
        codes |= _exit_codes(each)
    return codes
