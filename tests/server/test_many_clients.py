"""Two hundred clients at once, and those of them who go away in the middle."""

import os
from typing import Any

import anyio
import httpx2

from tests.server.conftest import Machine
from tests.server.serving import PATIENCE, Daemon, daemon
from tests.server.test_stdio import INITIALIZE, INITIALIZED

CLIENTS = 200
LIST = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "list_backups", "arguments": {"limit": 1}},
}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


async def test_two_hundred_clients_are_served_or_refused_and_leave_nothing_behind(
    machine: Machine,
) -> None:
    """Every fourth goes away while its call is being answered."""
    with daemon(machine) as running:
        served: list[int] = []
        limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=0)
        async with httpx2.AsyncClient(
            base_url=running.address, timeout=PATIENCE, headers=HEADERS, limits=limits
        ) as http:
            await talk(http, served, leaves=False)  # so that all that is loaded once has been
            before = descriptors(running)
            async with anyio.create_task_group() as tasks:
                for number in range(CLIENTS):
                    tasks.start_soon(lambda n=number: talk(http, served, leaves=n % 4 == 0))  # type: ignore[misc]
            assert (await http.get("/healthz")).status_code == 200
        assert len(served) == 1 + CLIENTS * 3 // 4
        assert set(served) <= {200, 429, 503}
        assert served.count(200) > CLIENTS // 2
        with anyio.fail_after(PATIENCE):
            while descriptors(running) > before + 5:  # noqa: ASYNC110 - another process
                await anyio.sleep(0.1)
        assert not any((machine.root / "backups/locks").iterdir())


async def talk(http: httpx2.AsyncClient, served: list[int], *, leaves: bool) -> None:
    """Shake hands, call a tool, say good-bye, or leave without."""
    answer = await http.post("/mcp", json=INITIALIZE)
    if answer.status_code != 200:
        served += [] if leaves else [answer.status_code]
        return
    session = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
    await http.post("/mcp", json=INITIALIZED, headers=session)
    if leaves:
        with anyio.move_on_after(0.05):
            await http.post("/mcp", json=LIST, headers=session)
        return
    called: Any = await http.post("/mcp", json=LIST, headers=session)
    assert called.status_code != 200 or '"isError":true' not in called.text
    served.append(called.status_code)
    await http.delete("/mcp", headers=session)


def descriptors(running: Daemon) -> int:
    return len(os.listdir(f"/proc/{running._process.pid}/fd"))
