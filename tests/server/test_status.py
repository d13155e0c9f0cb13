"""backup_status, and what is put on record of whoever calls a tool."""

import pytest
from mcp_types import Implementation

from mcp_backup.history import Asker
from tests.server.conftest import ERAS, Era, Machine, answered, text_of


@pytest.mark.parametrize("era", ERAS)
async def test_the_status_gives_its_word_first(machine: Machine, era: Era) -> None:
    async with machine.client(era) as client:
        made = await answered(client, "create_backup", verify=False)
        result = await client.call_tool("backup_status", {})

    facts = result.structured_content
    assert facts
    assert facts["health"] == "healthy"
    assert [source["source"] for source in facts["sources"]] == ["notes", "app"]
    assert facts["newest"][:19] == made["started"][:19]
    assert facts["statistics"]["successes"] >= 1
    assert text_of(result).startswith("HEALTHY: every source is young enough.")


@pytest.mark.parametrize("era", ERAS)
async def test_the_client_and_the_tool_are_on_record(machine: Machine, era: Era) -> None:
    about = Implementation(name="an agent", version="1.2")
    async with machine.client(era, client_info=about) as client:
        await client.call_tool("create_backup", {"verify": False})
        await client.call_tool("verify_backup", {"level": "structure"})
    async with machine.engine() as engine:
        runs = await engine.history.runs()

    assert [run.asker for run in runs[:2]] == [
        Asker("mcp", "an agent", "1.2", "verify_backup"),
        Asker("mcp", "an agent", "1.2", "create_backup"),
    ]
