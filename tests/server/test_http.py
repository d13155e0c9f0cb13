"""The server as a daemon: streamable HTTP on this machine only."""

import socket

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.client import Client

from mcp_backup.errors import SettingsInvalid
from mcp_backup.server.http import serve_http
from tests.server.conftest import ERAS, Era, Facts, Machine, answered, refusal
from tests.server.serving import PATIENCE, daemon
from tests.server.test_stdio import CREATE, INITIALIZE, INITIALIZED


async def test_clients_of_both_eras_share_one_daemon(machine: Machine) -> None:
    with daemon(machine) as running:
        for era in ERAS:
            async with Client(f"{running.address}/mcp", mode=era) as client:
                assert (await answered(client, "create_backup", backup_type="config"))["status"]
                assert (await refusal(client, "create_backup", bogus=1))[0] == "usage"
        assert (await answered_once(running.address))["total"] == 3


async def answered_once(address: str) -> Facts:
    async with Client(f"{address}/mcp") as client:
        return await answered(client, "list_backups")


async def test_requests_for_other_sites_are_refused(machine: Machine) -> None:
    with daemon(machine) as running:
        assert (await answered_once(running.address))["total"] == 1
        async with httpx2.AsyncClient(base_url=running.address) as http:
            assert (await http.get("/healthz")).json() == {"status": "healthy", "reasons": []}
            for path in ("/healthz", "/metrics", "/mcp"):
                answer = await http.get(path, headers={"Host": "evil.example"})
                assert answer.status_code == 400
            for path in ("/healthz", "/metrics"):
                for origin in ("http://evil.example", "null", "https://127.0.0.1", "http://["):
                    answer = await http.get(path, headers={"Origin": origin})
                    assert answer.status_code == 403
                answer = await http.get(path, headers={"Origin": running.address})
                assert answer.status_code == 200
            answer = await http.post("/mcp", headers={"Origin": "http://evil.example"}, json={})
            assert answer.status_code == 403


async def test_health_names_what_keeps_the_repository_shut(machine: Machine) -> None:
    (machine.root / "backups.key").write_text("not it")
    with daemon(machine) as running:
        async with Client(f"{running.address}/mcp") as client:
            assert (await refusal(client, "list_backups"))[0] == "wrong-password"
        async with httpx2.AsyncClient(base_url=running.address) as http:
            answer = await http.get("/healthz")
            measured = await http.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (503, "wrong-password")
    assert 'mcp_backup_error{code="wrong-password"} 1.0' in measured.text
    assert "mcp_backup_up 0.0" in measured.text


async def test_monitors_see_a_failing_backup_and_its_recovery(machine: Machine) -> None:
    text = machine.database.read_bytes()
    with daemon(machine) as running:
        async with httpx2.AsyncClient(base_url=running.address) as http:
            measured = await http.get("/metrics")
            assert measured.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert 'mcp_backup_health{state="healthy"} 1.0' in measured.text
            (machine.root / "app/settings.yaml").unlink()
            machine.database.unlink()
            async with Client(f"{running.address}/mcp") as client:
                await refusal(client, "create_backup", backup_type="database")
            answer = await http.get("/healthz")
            assert (answer.status_code, answer.json()["status"]) == (503, "failing")
            assert "does not exist" in " ".join(answer.json()["reasons"])
            assert 'mcp_backup_health{state="failing"} 1.0' in (await http.get("/metrics")).text
            machine.database.write_bytes(text)
            async with Client(f"{running.address}/mcp") as client:
                await answered(client, "create_backup", backup_type="database")
            assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("era", ERAS)
async def test_a_signal_in_the_middle_of_a_backup_leaves_none_and_ends_well(
    large: Machine, era: Era
) -> None:
    with daemon(large) as running:

        async def stop(progress: float, total: float | None, message: str | None) -> None:
            running.stop()

        async def back_up() -> None:
            async with Client(f"{running.address}/mcp", mode=era) as client:
                await client.call_tool("create_backup", {}, progress_callback=stop)
                pytest.fail("it was done before the signal came")

        with pytest.raises((MCPError, ExceptionGroup)):
            await back_up()
    async with large.engine() as engine:
        assert (await engine.check()).ok
        assert (await engine.backups()).total == 1


async def test_a_client_that_goes_away_cancels_its_backup(large: Machine) -> None:
    """By the 2026 protocol; in the 2025 one a lost connection does not mean that."""
    with daemon(large) as running:
        with anyio.CancelScope() as connection:

            async def hang_up(progress: float, total: float | None, message: str | None) -> None:
                connection.cancel()

            async with Client(f"{running.address}/mcp", mode="2026-07-28") as client:
                await client.call_tool("create_backup", {}, progress_callback=hang_up)
        assert (await answered_once(running.address))["total"] == 1


async def test_a_backup_outlives_a_lost_connection_by_the_2025_protocol(large: Machine) -> None:
    with daemon(large) as running:
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            url = f"{running.address}/mcp"
            headers = {"Accept": "application/json, text/event-stream"}
            answer = await http.post(url, json=INITIALIZE, headers=headers)
            headers |= {
                "Mcp-Session-Id": answer.headers["mcp-session-id"],
                "MCP-Protocol-Version": INITIALIZE["params"]["protocolVersion"],
            }
            await http.post(url, json=INITIALIZED, headers=headers)
            async with http.stream("POST", url, json=CREATE, headers=headers) as stream:
                async for line in stream.aiter_lines():
                    if "notifications/progress" in line:
                        break  # and hang up
        async with large.engine() as engine:
            with anyio.fail_after(PATIENCE):
                while (run := (await engine.history.runs(limit=1))[0]).ended is None:  # noqa: ASYNC110 - another process
                    await anyio.sleep(0.1)
            assert (run.verb, run.outcome) == ("create", "completed")
            assert (await engine.backups()).total == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "backup.example"])  # noqa: S104
def test_an_address_that_others_can_reach_is_refused(machine: Machine, host: str) -> None:
    with pytest.raises(SettingsInvalid, match="other machines can reach"):
        serve_http(machine.settings(), host, 0)


def test_a_port_in_use_is_told(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"cannot listen on 127.0.0.1, port {port}"):
            serve_http(machine.settings(), "127.0.0.1", port)
