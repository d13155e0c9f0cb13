"""An MCP server on stdio, spoken to line by line: no client library is in the measured time."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import ProgramFailed, tree_memory


class ServerSession:
    """A session with one server, from its start to its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Wrap a running server; use `server_session` to start one."""
        self._process = process
        self._asked = 0

    def begin(self) -> None:
        """Shake hands and ask for the tools, as every client does first."""
        client = {"name": "bench", "version": "1"}
        version = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.ask("initialize", version)
        self._send({"method": "notifications/initialized"})
        self.ask("tools/list", {})

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Return the result of a request.

        Raises:
            ProgramFailed: the server answered an error, or ended.
        """
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params})
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if message.get("id") == self._asked:
                if "error" in message or message["result"].get("isError"):
                    raise ProgramFailed(f"{method}: {message}")
                return message["result"]
        raise ProgramFailed(f"{method}: the server ended")

    def call(self, tool: str, **arguments: Any) -> float:
        """Call a tool; return the seconds until its answer was there."""
        began = time.perf_counter()
        self.ask("tools/call", {"name": tool, "arguments": arguments})
        return time.perf_counter() - began

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def memory(self) -> int:
        """The server's memory now, in bytes (PSS, with its children)."""
        return tree_memory(self._process.pid)

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()


@contextmanager
def server_session(
    command: Sequence[str], environment: Mapping[str, str], directory: Path
) -> Iterator[ServerSession]:
    """Start a server for the duration of the block."""
    with (
        (directory / "server.log").open("wb") as log,
        subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        try:
            yield ServerSession(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


def time_to_tools(
    command: Sequence[str], environment: Mapping[str, str], directory: Path
) -> tuple[float, int]:
    """Return the seconds from the start of a server to its list of tools, and its memory then."""
    began = time.perf_counter()
    with server_session(command, environment, directory) as session:
        session.begin()
        return time.perf_counter() - began, session.memory
