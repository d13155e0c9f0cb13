"""The server as clients start it: a process, its streams, its end."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.client import Client

from tests.server.conftest import ERAS, Era, Machine, answered, refusal
from tests.server.serving import PATIENCE, pipe

INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
CREATE = {
    "jsonrpc": "2.0",
    "id": 3,
    "method": "tools/call",
    "params": {"name": "create_backup", "arguments": {}, "_meta": {"progressToken": "p"}},
}


@contextmanager
def served(machine: Machine, errors: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, and have it answer."""
    with subprocess.Popen(
        machine.command("serve"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
    ) as process:
        try:
            send(process, INITIALIZE)
            assert received(process)["id"] == 1
            send(process, INITIALIZED)
            send(process, LIST)
            assert received(process)["id"] == 2  # now it waits for input
            yield process
        finally:
            process.kill()


def send(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    pipe(process.stdin).write(json.dumps(message).encode() + b"\n")
    pipe(process.stdin).flush()


def received(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(pipe(process.stdout).readline())
    assert message["jsonrpc"] == "2.0"
    return message


def descendants(pid: int) -> set[int]:
    """Return the processes below one, by /proc."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= {int(child)} | descendants(int(child))
    return found


@contextmanager
def watched(processes: set[int]) -> Iterator[list[int]]:
    """Hold handles of processes, which become readable when the processes end."""
    with ExitStack() as held:
        handles = [os.pidfd_open(process) for process in processes]
        for handle in handles:
            held.callback(os.close, handle)
        yield handles


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_backs_up_lists_and_verifies(machine: Machine, era: Era) -> None:
    async with Client(machine.stdio(), mode=era) as client:
        made = await answered(client, "create_backup", verify="false")
        assert (made["status"], made["verification"]) == ("completed", "skipped")
        page = await answered(client, "list_backups")
        assert page["backups"][0]["backup_id"] == made["backup_id"]
        assert (await answered(client, "verify_backup"))["ok"]
        assert (await refusal(client, "create_backup", bogus=1))[0] == "usage"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for children in /proc")
@pytest.mark.parametrize(
    ("ending", "gone"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
async def test_a_signal_in_the_middle_of_a_backup_leaves_no_process_and_no_backup(
    large: Machine, ending: signal.Signals, gone: bool
) -> None:
    with ExitStack() as held, served(large) as process:
        send(process, CREATE)
        assert received(process)["method"] == "notifications/progress"
        children = held.enter_context(watched(descendants(process.pid)))
        assert children
        if gone:  # as clients do: first they close, then they signal
            pipe(process.stdin).close()
        process.send_signal(ending)
        assert process.wait(PATIENCE) == 0
        for line in pipe(process.stdout).readlines():
            assert json.loads(line)["jsonrpc"] == "2.0"
        for child in children:
            assert select.select([child], [], [], PATIENCE)[0]
    async with large.engine() as engine:
        assert (await engine.backups()).total == 1
        assert (await engine.check()).ok
        assert list((large.root / "backups/locks").iterdir()) == []
    assert list((large.root / "state/scratch").iterdir()) == []


async def test_a_backup_whose_client_closes_its_end_is_finished_or_stopped_and_says_which(
    large: Machine,
) -> None:
    with served(large, subprocess.PIPE) as process:
        send(process, CREATE)
        assert received(process)["method"] == "notifications/progress"
        pipe(process.stdin).close()
        pipe(process.stdout).close()
        told = pipe(process.stderr).read().decode()
        assert process.wait(PATIENCE) == 0
    assert "its backup goes on" in told
    finished = "finished without its client: backup" in told
    assert finished or "stopped without its client, nothing of it is kept" in told
    async with large.engine() as engine:
        assert (await engine.backups()).total == (2 if finished else 1)
        (run,) = await engine.history.runs(verb="create", limit=1)
        assert run.outcome == ("completed" if finished else "cancelled")
        assert (await engine.check()).ok


def test_an_idle_server_ends_at_ctrl_c_though_its_input_stays_open(machine: Machine) -> None:
    with served(machine) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_backup_leaves_nothing_and_the_server_goes_on(
    large: Machine, era: Era
) -> None:
    async with Client(large.stdio(), mode=era) as client:
        with anyio.CancelScope() as call:

            async def cancel(progress: float, total: float | None, message: str | None) -> None:
                call.cancel()

            await client.call_tool("create_backup", {}, progress_callback=cancel)
        assert call.cancelled_caught
        assert (await answered(client, "list_backups"))["total"] == 1
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("create_backup", {}, read_timeout_seconds=0.1)
        assert (await answered(client, "list_backups"))["total"] == 1
        assert (await answered(client, "create_backup", backup_type="config"))["status"]


def test_a_client_that_dies_leaves_no_server(machine: Machine) -> None:
    with served(machine) as process:
        pipe(process.stdout).close()  # and nobody reads its answers any more
        send(process, CREATE)
        pipe(process.stdin).close()
        assert process.wait(PATIENCE) == 0
