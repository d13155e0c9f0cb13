"""call: a tool, called as an agent would, on a running server or in this process."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import anyio
import httpx2
import typer
from mcp import MCPError
from mcp.client import Client
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

from mcp_backup.cli.flags import described, tool_arguments
from mcp_backup.cli.session import Session, session
from mcp_backup.errors import BackupError, ServerUnreachable, UsageError
from mcp_backup.opening import opened
from mcp_backup.progress import Progress
from mcp_backup.server.app import build_server
from mcp_backup.server.closed import ERROR_META
from mcp_backup.server.keeper import EngineKeeper
from mcp_backup.terminal_progress import progress_bars

_FAILED = 1
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

    async def at_work() -> int:
        async with _client(this, url) as client:
            tools = await client.list_tools()
            if not tool:
                this.terminal.result(tools, list(_listed(tools)))
                return 0
            chosen = _chosen(tools, tool)
            arguments = tool_arguments(chosen.name, chosen.input_schema, context.args)
            with progress_bars(this.terminal) as listener:

                async def report(progress: float, total: float | None, message: str | None) -> None:
                    await listener(Progress(chosen.name, "", int(progress), int(total or 0)))

                result = await client.call_tool(chosen.name, arguments, progress_callback=report)
            return _answered(this, result)

    return this.interruptible(
        lambda: anyio.run(at_work),
        unfinished="The server was told to stop; ask it with list_backups what is there.",
    )


@asynccontextmanager
async def _client(this: Session, url: str) -> AsyncIterator[Client]:
    """Connect; what goes wrong underneath is told as what it is.

    Raises:
        ServerUnreachable: nobody answers, or not in MCP.
    """
    server = url or build_server(EngineKeeper(partial(opened, this.settings())))
    try:
        async with Client(server) as client:
            yield client
    except (*_BROKEN, BaseExceptionGroup) as error:
        for leaf in _leaves(error):
            if isinstance(leaf, BackupError):
                raise leaf from None
            if isinstance(leaf, _BROKEN):
                raise ServerUnreachable(url or "this process", str(leaf)) from error
        raise


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
