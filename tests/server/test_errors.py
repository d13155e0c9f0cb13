"""Failures, expected and not."""

import logging

import pytest
from mcp.client import Client
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

from mcp_backup.opening import initialise
from mcp_backup.server.closed import closed
from tests.server.conftest import ERAS, Era, Machine, answered, refusal, text_of

CALLS: dict[str, dict[str, str]] = {
    "create_backup": {},
    "list_backups": {},
    "backup_status": {},
    "verify_backup": {},
    "restore_backup": {},
    "undo_restore": {"restore_id": "restore_20261122_211841_1ed2c86d"},
    "run_drill": {},
}


@pytest.mark.parametrize("era", ERAS)
async def test_an_error_has_a_code_a_fact_and_a_next_step(machine: Machine, era: Era) -> None:
    async with machine.client(era) as client:
        result = await client.call_tool("verify_backup", {"backup_id": "backup_20200101_000000"})
    facts = (result.meta or {})["mcp-backup/error"]
    assert facts == {
        "code": "unknown-backup",
        "retryable": False,
        "hint": "Call list_backups (or `mcp-backup list`) and use one of its ids, or `latest`.",
    }
    assert text_of(result) == (
        "[unknown-backup] no backup answers to 'backup_20200101_000000' among 1. " + facts["hint"]
    )
    assert result.structured_content is None


async def test_without_a_repository_the_server_starts_and_says_so_until_there_is_one(
    bare: Machine,
) -> None:
    async with bare.client() as client:
        assert len((await client.list_tools()).tools) == len(CALLS)
        for tool, arguments in CALLS.items():
            code, text = await refusal(client, tool, **arguments)
            assert code in ("repository-missing", "settings-invalid")  # there is no key file yet
            assert "mcp-backup init" in text
        await initialise(bare.settings())
        assert (await answered(client, "list_backups"))["total"] == 0


async def test_a_wrong_password_is_told_and_corrected_without_a_restart(machine: Machine) -> None:
    key = machine.root / "backups.key"
    password = key.read_text()
    key.write_text("not it")
    async with machine.client() as client:
        for tool, arguments in CALLS.items():
            assert (await refusal(client, tool, **arguments))[0] == "wrong-password"
        key.write_text(password)
        assert (await answered(client, "list_backups"))["total"] == 1


async def test_a_bug_is_told_generically_and_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> str:
        """Break."""
        raise ZeroDivisionError("the secret is 42")

    server = MCPServer("s", version="1", tools=[closed(broken, "Broken", ToolAnnotations())])
    with caplog.at_level(logging.ERROR):
        async with Client(server) as client:
            result = await client.call_tool("broken", {})
    assert result.is_error
    assert text_of(result) == "Error executing tool broken"
    assert "ZeroDivisionError: the secret is 42" in caplog.text
