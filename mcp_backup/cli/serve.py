"""serve: the door for agents, opened from the terminal."""

from importlib import import_module
from typing import Annotated

import typer

from mcp_backup.cli.session import session
from mcp_backup.server.run import serve_stdio


def serve(
    context: typer.Context,
    *,
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP instead of stdin and stdout.")
    ] = False,
    host: Annotated[str, typer.Option(help="The address to listen on, for --http.")] = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port, for --http; 0: a free one.")
    ] = None,
) -> int:
    """Serve agents over MCP until they hang up or a signal comes."""
    this = session(context)
    settings = this.settings()
    if http:
        address = host or settings.server.host
        number = settings.server.port if port is None else port
        serve_http = import_module("mcp_backup.server.http").serve_http  # not loaded for stdio
        this.interruptible(lambda: serve_http(settings, address, number), unfinished="")
    else:
        this.interruptible(lambda: serve_stdio(settings), unfinished="")
    return 0
