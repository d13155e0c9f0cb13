"""MCP's client, connected to the server of a source. Loaded only when one is talked to."""

import os
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from mcp import MCPError
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, get_default_environment
from mcp.client.streamable_http import streamable_http_client

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.source import SourceSpec

BROKEN = (httpx2.HTTPError, MCPError, OSError)  # what talking to a server may end with
_COMMAND_SECONDS = 30.0
_LARGEST_ANSWER = 256 << 20  # bytes; one page of documents


@asynccontextmanager
async def client_of(spec: SourceSpec) -> AsyncIterator[Client]:
    """Be connected for the block, over HTTP or to a child on stdio, as the options say."""
    options = spec.options
    if options.get("command"):
        program, *words = options["command"]
        named = {name: os.environ.get(name, "") for name in options["pass_environment"]}
        named |= options["environment"]
        parameters = StdioServerParameters(
            command=program, args=words, env={**get_default_environment(), **named}
        )
        async with Client(parameters) as client:
            yield client
        return
    token = _token(spec)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    seconds = options["timeout_seconds"]
    async with httpx2.AsyncClient(headers=headers, timeout=seconds) as http:
        transport = streamable_http_client(
            options["url"], http_client=http, max_sse_event_size=_LARGEST_ANSWER
        )
        async with Client(transport) as client:
            yield client


def _token(spec: SourceSpec) -> str:
    """Return the bearer token that the settings name; it is in no message and no log."""
    file, command = spec.options.get("token_file"), spec.options.get("token_command")
    try:
        if file:
            return Path(file).read_text().strip()
        if command:
            done = subprocess.run(
                shlex.split(command), capture_output=True, timeout=_COMMAND_SECONDS, check=True
            )
            return done.stdout.decode().strip()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        where = f"token_file {file}" if file else "token_command"
        why = getattr(error, "strerror", None) or type(error).__name__
        raise SourceUnreadable(
            f"source {spec.name!r}: {where}: no token could be had: {why}",
            hint="Correct it in the settings; it must give the token and nothing else.",
        ) from None
    return ""
