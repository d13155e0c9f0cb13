"""An MCP server that has its DuckDB memories open, and backs them up itself.

    python examples/owner.py DIRECTORY

Nobody else can open a DuckDB file while this server has it, so the server hands out a copy from
its own connection. It never opens the file a second time: closing it would drop the lock.
"""

import sys
from pathlib import Path

import anyio
import duckdb
from anyio import to_thread
from mcp.client import Client
from mcp.server.mcpserver import MCPServer

from mcp_backup.opening import initialise, opened
from mcp_backup.server.app import add_backup_tools
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import DatabaseSettings, RepositorySettings


async def main(directory: Path) -> None:
    """Serve memories, and back them up while they are open."""
    memories = duckdb.connect(str(directory / "memories.duckdb"))
    memories.execute("CREATE TABLE IF NOT EXISTS memory (text VARCHAR)")

    async def copied(target: Path) -> None:
        """Write what is committed now into `target`, from the connection that is open anyway."""

        def copy() -> None:
            with memories.cursor() as cursor:
                cursor.execute(f"ATTACH '{target / 'memories.duckdb'}' AS copy")
                cursor.execute("COPY FROM DATABASE memories TO copy").fetchall()
                cursor.execute("DETACH copy")

        await to_thread.run_sync(copy)

    settings = Settings(
        repository=RepositorySettings(
            location=str(directory / "backups"), password_file=directory / "backups.key"
        ),
        databases=(
            DatabaseSettings(name="memories", kind="duckdb", path=directory / "memories.duckdb"),
        ),
        state_dir=directory / "state",
    )
    await initialise(settings)
    server = MCPServer("memories", version="1")

    @server.tool()
    async def remember(text: str) -> str:
        """Keep a text."""
        memories.execute("INSERT INTO memory VALUES (?)", (text,))
        return "kept"

    async with opened(settings) as engine:
        add_backup_tools(server, engine, {"memories": copied})
        async with Client(server) as client:
            await client.call_tool("remember", {"text": "a thing worth keeping"})
            answer = await client.call_tool("create_backup", {})
    sys.stdout.write(f"{answer.structured_content}\n")
    memories.close()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]).resolve())
