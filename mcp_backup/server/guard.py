"""What every request has to get past, on every route, before anything looks at what it wants.

Host        names a server that is ours: another site's name may have been made to resolve here
Origin      if there is one, is a page of ours, or one that the settings name
head        arrives within ten seconds, the body within twenty, and is not large
"""

import asyncio
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import anyio
import h11
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # hosts that no other site's name can resolve to
LARGEST_BODY = 1 << 20  # bytes; a tool's arguments are a few hundred
HEAD_SECONDS = 10.0
BODY_SECONDS = 20.0


class Guard:
    """Refuses requests of other sites, and bodies that are too large or too slow."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str],
        origins: Collection[str] = (),
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        """Guard an application that is reached under the names `hosts`."""
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 403, 408 or 413, or hand the request on with its body read."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(Headers(scope=scope), scope["scheme"])
            body = b"" if refusal else await self._body(scope, receive)
            if refusal or isinstance(body, Response):
                answer = refusal or body
                assert isinstance(answer, Response)
                await answer(scope, receive, send)
            else:
                await self._app(scope, _again(body, receive), send)

    def _refusal(self, headers: Headers, scheme: str) -> Response | None:
        if len(headers.getlist("host")) != 1 or self._name(headers["host"]) not in self._hosts:
            return PlainTextResponse("Invalid Host header", 400)
        for origin in headers.getlist("origin"):
            if not self._is_ours(origin, scheme):
                return PlainTextResponse("Invalid Origin header", 403)
        return None

    def _name(self, host: str) -> str:
        return _host_of(f"//{host}") if not set(host) & set("/?#@ ") else ""

    def _is_ours(self, origin: str, ours: str) -> bool:
        """A page of ours came from one of our hosts, by the scheme that we are reached by."""
        if origin.lower() in self._origins:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme == ours and self._name(rest) in self._hosts

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response:
        too_large = PlainTextResponse("Request body too large", 413, {"connection": "close"})
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return too_large
        body = bytearray()
        try:
            with anyio.fail_after(self._body_seconds):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > LARGEST_BODY:
                        return too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            return PlainTextResponse("Request body too slow", 408, {"connection": "close"})


class ImpatientProtocol(H11Protocol):
    """HTTP, hung up on when a request's head does not arrive in time. Uvicorn waits for ever."""

    head_seconds = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        self._waiting: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on for a head that has begun; not from the start again with each byte."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _host_of(address: str) -> str:
    try:
        parts = urlsplit(address)
        _ = parts.port  # which may not be a number
    except ValueError:
        return ""
    return (parts.hostname or "").lower()


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what receives the body that was read, and then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return waiting.pop() if waiting else await receive()

    return replay
