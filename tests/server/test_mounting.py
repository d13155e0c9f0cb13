"""The tools on somebody else's server, and what our own says of itself."""

from mcp.client import Client
from mcp.server.mcpserver import MCPServer

from mcp_backup import __version__
from mcp_backup.server.app import add_backup_tools
from tests.server.conftest import Machine, answered, refusal


async def test_another_server_gets_the_tools_with_one_call(machine: Machine) -> None:
    server = MCPServer("other", version="1")

    @server.tool()
    async def own() -> str:
        """Answer."""
        return "mine"

    async with machine.engine() as engine:
        add_backup_tools(server, engine)
        async with Client(server) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"own", "create_backup", "undo_restore"} <= names
            assert (await answered(client, "list_backups"))["total"] == 1
            assert (await refusal(client, "list_backups", bogus=1))[0] == "usage"


async def test_annotations_say_what_each_tool_may_do(machine: Machine) -> None:
    async with machine.client() as client:
        listed = await client.list_tools()
    told = {}
    for tool in listed.tools:
        hints = tool.annotations
        assert hints is not None
        assert tool.title
        assert tool.description
        assert hints.open_world_hint is False
        told[tool.name] = (hints.read_only_hint, hints.destructive_hint)
    assert told == {
        "create_backup": (False, False),
        "list_backups": (True, False),
        "verify_backup": (True, False),
        "backup_status": (True, False),
        "restore_backup": (False, True),
        "undo_restore": (False, True),
        "run_drill": (False, False),
    }


async def test_the_server_introduces_itself(machine: Machine) -> None:
    async with machine.client() as client:
        assert client.server_info is not None
        assert client.server_info.version == __version__
        instructions = client.instructions or ""
    assert "restore_backup" in instructions
    assert "person" in instructions
