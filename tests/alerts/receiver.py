"""A real HTTP receiver on loopback, in a thread, that does as it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "t0ken-in-the-address"  # noqa: S105 - planted, to be looked for where it must not be


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def facts(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What it got, and what it answers. While `hold` is clear it answers nothing."""

    port: int
    got: list[Received] = field(default_factory=list)
    status: int = 200
    answer: bytes = b"OK"
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{SECRET}"

    @property
    def events(self) -> list[str]:
        return [received.facts["event"] for received in self.got]

    @property
    def paths(self) -> list[str]:
        return [received.path.removeprefix(f"/{SECRET}") for received in self.got]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.got.append(Received(self.path, dict(self.headers), body))
            state.hold.wait(30)
            try:
                self.send_response(state.status)
                for name, value in state.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(state.answer)
            except OSError:
                pass  # whoever asked has gone

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = Receiver(server.server_address[1])
        state.hold.set()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            state.hold.set()
            server.shutdown()
            thread.join()
