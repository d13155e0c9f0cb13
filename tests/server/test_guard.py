"""What the guard does about those who send slowly, ask too much at once, or pose as a proxy."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest
import uvicorn
from mcp import MCPError
from mcp.client import Client
from mcp.server.mcpserver import MCPServer
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from mcp_backup.server.guard import LOOPBACK, Guard, ImpatientProtocol
from mcp_backup.server.limits import TOO_MANY_CALLS, limit_calls

HELLO = PlainTextResponse("hello")


class Hasty(ImpatientProtocol):
    """As impatient as a test."""

    head_seconds = 0.3


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    config = uvicorn.Config(app, http=Hasty, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


async def dribble(stream: anyio.abc.SocketStream) -> None:
    """Send a byte now and then, which is of no help."""
    await stream.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    with anyio.fail_after(30):
        while True:
            await stream.send(b"X")
            with anyio.move_on_after(0.05):
                await stream.receive()


async def test_a_head_that_does_not_arrive_in_time_ends_the_connection() -> None:
    async with serving(Guard(HELLO, LOOPBACK)) as port:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await dribble(stream)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for _ in range(3):
                assert (await http.get("/")).text == "hello"
                await anyio.sleep(0.2)


async def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    async with serving(Guard(HELLO, LOOPBACK, body_seconds=0.2)) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        async with stream:
            await stream.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
            with anyio.fail_after(30):
                assert (await stream.receive()).startswith(b"HTTP/1.1 408")


async def test_only_a_named_proxy_says_by_what_scheme_a_request_came() -> None:
    """A page at https://localhost is of ours only when we are reached by HTTPS."""
    headers = {"X-Forwarded-Proto": "https", "Origin": "https://localhost"}
    for proxy, status in (("127.0.0.1", 200), ("192.0.2.1", 403)):
        app = ProxyHeadersMiddleware(Guard(HELLO, LOOPBACK), trusted_hosts=[proxy])  # type: ignore[arg-type]
        transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.get("/", headers=headers)).status_code == status


async def test_one_client_has_so_many_calls_running_and_is_told_when_it_asks_for_more() -> None:
    running, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def work() -> str:
        running.release()
        await go_on.wait()
        return "done"

    server = MCPServer("working", middleware=[limit_calls(2)])
    server.add_tool(work)
    async with Client(server) as client:
        calls = [asyncio.create_task(client.call_tool("work", {})) for _ in range(2)]
        for _ in calls:
            await running.acquire()
        with pytest.raises(MCPError, match="2 calls of yours are running") as refused:
            await client.call_tool("work", {})
        assert refused.value.error.code == TOO_MANY_CALLS
        assert len((await client.list_tools()).tools) == 1
        go_on.set()
        for call in calls:
            assert not (await call).is_error
        assert not (await client.call_tool("work", {})).is_error
