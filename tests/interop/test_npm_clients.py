"""Clients that others wrote, from npm: the TypeScript SDKs, and the Inspector's command line.

`npm` installs them.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.opening import initialise
from tests.interop.npm import NODE
from tests.interop.npm import installed as installed
from tests.server.conftest import Machine, made
from tests.server.serving import PATIENCE, daemon, pipe

INSPECTOR = NODE / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
CLIENTS = ["v1", "v2-legacy", "v2-modern"]
TOOLS = [
    "create_backup",
    "list_backups",
    "backup_status",
    "verify_backup",
    "restore_backup",
    "undo_restore",
    "run_drill",
]
YES = {"action": "accept", "content": {"confirm": True}}
TOOL_FAILED = 5  # the Inspector's exit code

Answer = dict[str, Any]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose person is asked at the client."""
    machine = made(tmp_path, "elicit")
    asyncio.run(initialise(machine.settings()))
    return machine


class Session:
    """One session of `session.mjs`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.tools: list[str] = self._line()["tools"]

    def _line(self) -> Answer:
        line: Answer = json.loads(pipe(self._process.stdout).readline())
        return line

    def __call__(self, tool: str, elicit: Answer | None = None, **arguments: Any) -> Answer:
        """Call a tool; return the client's result, with what it was asked and told meanwhile."""
        call = {"tool": tool, "arguments": arguments, "elicit": elicit}
        pipe(self._process.stdin).write(json.dumps(call).encode() + b"\n")
        pipe(self._process.stdin).flush()
        answer = self._line()
        assert "error" not in answer, answer
        return answer

    def content(self, tool: str, elicit: Answer | None = None, **arguments: Any) -> Answer:
        """Call a tool that must succeed; return its structured content."""
        result = self(tool, elicit, **arguments)["result"]
        assert not result.get("isError"), result
        content: Answer = result["structuredContent"]
        return content


@contextmanager
def session(client: str, *where: str) -> Iterator[Session]:
    """Run a client on the server that `where` names; it must end well when we are done."""
    command = ["node", str(NODE / "session.mjs"), client, *where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Session(process)
            pipe(process.stdin).close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_typescript_client_backs_up_and_restores_over_stdio(
    machine: Machine, client: str
) -> None:
    with session(client, "stdio", *machine.command("serve")) as call:
        assert call.tools == TOOLS
        made = call("create_backup", verify="true", databases="notes")
        assert made["result"]["structuredContent"]["status"] == "completed"
        assert made["progress"]
        assert call.content("verify_backup", level="structure")["ok"]
        assert call.content("list_backups")["total"] == 1

        machine.write("second")
        plan = call.content("restore_backup", components="databases")
        refused = call("restore_backup", plan_id=plan["plan_id"])["result"]
        assert refused["_meta"]["mcp-backup/error"]["code"] == "restore-declined"
        assert machine.texts() == ["first", "second"]
        done = call("restore_backup", YES, plan_id=plan["plan_id"])
        assert len(done["asked"]) == 1
        assert machine.texts() == ["first"]
        undo_id = done["result"]["structuredContent"]["undo_id"]
        call.content("undo_restore", YES, restore_id=undo_id)
        assert machine.texts() == ["first", "second"]


def test_typescript_clients_share_a_daemon(machine: Machine) -> None:
    with daemon(machine) as running:
        for number, client in enumerate(CLIENTS, start=1):
            with session(client, "http", f"{running.address}/mcp") as call:
                made = call.content("create_backup", backup_type="config", verify=False)
                page = call.content("list_backups", limit=1)
                assert page["backups"][0]["backup_id"] == made["backup_id"]
                assert page["total"] == number
                refused = call("create_backup", bogus=1)["result"]
                assert refused["_meta"]["mcp-backup/error"]["code"] == "usage"


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_finds_no_fault_and_calls_the_tools(
    machine: Machine, tmp_path: Path, era: str
) -> None:
    program, *arguments = machine.command("serve")
    servers = tmp_path / "servers.json"
    servers.write_text(
        json.dumps({"mcpServers": {"backups": {"command": program, "args": arguments}}})
    )

    def inspect(*arguments: str) -> tuple[int, Answer]:
        server = ["--config", str(servers), "--server", "backups", "--protocol-era", era]
        done = subprocess.run(
            ["node", str(INSPECTOR), "--cli", *server, "--method", *arguments],
            env=os.environ | {"MCP_INSPECTOR_SECRET_STORE": "memory"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    status, listed = inspect("tools/list", "--strict")
    assert (status, [tool["name"] for tool in listed["tools"]]) == (0, TOOLS)
    create = ("tools/call", "--tool-name", "create_backup", "--tool-arg")
    status, made = inspect(*create, "backup_type=config", "verify=false")
    assert (status, made["structuredContent"]["status"]) == (0, "completed")
    status, refused = inspect(*create, "bogus=1")
    assert status == TOOL_FAILED
    assert refused["_meta"]["mcp-backup/error"]["code"] == "usage"
