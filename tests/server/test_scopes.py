"""Who may call what: by the scopes of the settings on stdio, by the token's over HTTP."""

import ast
from pathlib import Path

import pytest
from mcp.client import Client

from mcp_backup.server.app import build_server
from mcp_backup.server.closed import ClosedTool
from mcp_backup.server.keeper import EngineKeeper
from mcp_backup.server.scopes import TOOLS
from mcp_backup.server.tools import backup_tools
from mcp_backup.settings_server import ALL_SCOPES, Scope, ServerSettings
from tests.server.conftest import ERAS, Era, Machine, answered, refusal

PACKAGE = Path(__file__).parents[2] / "mcp_backup"
DELETING = {"forgetting", "retention", "keyring", "settings_text"}


def client_with(machine: Machine, era: Era, *scopes: Scope) -> Client:
    server = build_server(EngineKeeper(machine.engine), server=ServerSettings(scopes=scopes))
    return Client(server, mode=era)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("scope", ALL_SCOPES)
async def test_a_client_sees_and_calls_what_its_scopes_cover_and_nothing_else(
    machine: Machine, era: Era, scope: Scope
) -> None:
    allowed = {tool for tool, needed in TOOLS.items() if scope in (needed, "admin")}
    async with client_with(machine, era, scope) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert listed == allowed & {
            tool.name for tool in backup_tools(EngineKeeper(machine.engine).engine)
        }
        for tool in {"list_backups", "create_backup", "restore_backup"} - allowed:
            code, text = await refusal(client, tool)
            assert code == "not-permitted"
            assert f"'{TOOLS[tool]}'" in text
    async with machine.engine() as engine:
        assert (await engine.backups()).total == 1


async def test_a_client_without_scopes_has_no_tools(machine: Machine) -> None:
    async with client_with(machine, "legacy") as client:
        assert (await client.list_tools()).tools == []
        assert (await refusal(client, "backup_status"))[0] == "not-permitted"


async def test_the_settings_name_the_scopes_of_a_server_on_stdio(machine: Machine) -> None:
    text = machine.config.read_text()
    machine.config.write_text(f'{text}\n[server]\nscopes = ["read"]\n')
    async with Client(machine.stdio()) as client:
        assert "create_backup" not in {tool.name for tool in (await client.list_tools()).tools}
        assert (await answered(client, "list_backups"))["total"] == 1
        assert (await refusal(client, "create_backup"))[0] == "not-permitted"


def test_every_tool_has_a_row_in_the_table_and_keeps_to_it(machine: Machine) -> None:
    """A tool without one is for `admin` alone; a tool of another class would not ask."""
    tools = backup_tools(EngineKeeper(machine.engine).engine)
    assert {tool.name for tool in tools} <= set(TOOLS)
    assert {type(tool) for tool in tools} == {ClosedTool}


def test_no_tool_deletes_backups_or_changes_retention_settings_or_keys() -> None:
    """No module of the server's can name what does, at any level of an import.

    The schedule, which drops what retention does not keep, is run by the server and by no tool.
    """
    for path in (PACKAGE / "server").glob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {node.module or "", *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)  # of import_module
        parts = {part for name in names for part in name.split(".")}
        assert parts & DELETING == set(), path.name
        if path.name != "scheduling.py":
            assert "mcp_backup.schedule" not in names, path.name


async def test_no_tool_takes_a_setting_a_path_or_a_number_to_keep(machine: Machine) -> None:
    async with client_with(machine, "legacy", "admin") as client:
        tools = (await client.list_tools()).tools
    arguments = {name for tool in tools for name in tool.input_schema["properties"]}
    assert not {
        each for each in arguments if {"path", "file", "keep", "delete"} & set(each.split("_"))
    }
    assert not {
        tool.name for tool in tools if {"delete", "forget", "prune"} & set(tool.name.split("_"))
    }
