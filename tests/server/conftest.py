"""A machine to back up (live data, settings, a repository), and clients of its server."""

import asyncio
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp_types import CallToolResult, TextContent

from mcp_backup.engine import Engine
from mcp_backup.opening import initialise, opened
from mcp_backup.server.app import build_server
from mcp_backup.server.keeper import EngineKeeper
from mcp_backup.settings import Settings, load_settings
from mcp_backup.verbs import CreateRequest

LARGE = 384 << 20  # bytes: more than a second of work, so that there is a middle
ERAS = ["legacy", "2026-07-28"]
Era = Literal["legacy", "2026-07-28"]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """What the server works on. `root` holds everything."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "mcp-backup.toml"

    @property
    def database(self) -> Path:
        return self.root / "notes.db"

    def settings(self) -> Settings:
        return load_settings(self.config, {}, self.root)

    def engine(self) -> AbstractAsyncContextManager[Engine]:
        return opened(self.settings())

    def write(self, text: str) -> None:
        with sqlite3.connect(self.database) as connection:
            connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))
        connection.close()

    def texts(self) -> list[str]:
        connection = sqlite3.connect(self.database)
        rows = connection.execute("SELECT text FROM notes ORDER BY id").fetchall()
        connection.close()
        return [text for (text,) in rows]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mcp_backup", "--config", str(self.config), *arguments]

    def stdio(self) -> StdioServerParameters:
        program, *arguments = self.command("serve")
        return StdioServerParameters(command=program, args=arguments)

    @asynccontextmanager
    async def client(self, era: Era = "legacy", **options: Any) -> AsyncIterator[Client]:
        """Connect to a server in this process."""
        server = build_server(EngineKeeper(self.engine))
        async with Client(server, mode=era, **options) as client:
            yield client


def settings_text(root: Path, confirmation: str) -> str:
    return f"""
        state_dir = "{root}/state"
        [repository]
        location = "{root}/backups"
        password_file = "{root}/backups.key"
        [restore]
        confirmation = "{confirmation}"
        [[databases]]
        name = "notes"
        path = "{root}/notes.db"
        [[config]]
        name = "app"
        root = "{root}/app"
        include = ["*.yaml"]
        """


def made(root: Path, confirmation: str = "human") -> Machine:
    """Make a machine with one live database and one configuration file, and no repository."""
    machine = Machine(root)
    machine.config.write_text(settings_text(root, confirmation))
    (root / "app").mkdir()
    (root / "app/settings.yaml").write_text("a: 1\n")
    with sqlite3.connect(machine.database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    connection.close()
    machine.write("first")
    return machine


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """A machine that has no repository yet."""
    return made(tmp_path)


@pytest.fixture
async def empty(bare: Machine) -> Machine:
    """A machine with an empty repository."""
    await initialise(bare.settings())
    return bare


@pytest.fixture(scope="session")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a machine with one backup, to copy."""
    machine = made(tmp_path_factory.mktemp("machine"))

    async def back_up() -> None:
        await initialise(machine.settings())
        async with machine.engine() as engine:
            await engine.create(CreateRequest())

    asyncio.run(back_up())
    return machine.root


@pytest.fixture
def confirming(backed_up: Path, tmp_path: Path) -> Callable[[str], Machine]:
    """Make a machine with one backup, whose restores are confirmed in the way given."""

    def make(confirmation: str) -> Machine:
        root = tmp_path / confirmation
        shutil.copytree(backed_up, root)
        machine = Machine(root)
        machine.config.write_text(settings_text(root, confirmation))
        return machine

    return make


@pytest.fixture
def machine(confirming: Callable[[str], Machine]) -> Machine:
    """A machine with one backup of everything, made when `texts` were ["first"]."""
    return confirming("human")


@pytest.fixture
def large(machine: Machine) -> Machine:
    """A machine whose next backup takes a while."""
    connection = sqlite3.connect(machine.database)
    connection.execute("CREATE TABLE blobs (data BLOB)")
    for _ in range(LARGE >> 20):
        connection.execute("INSERT INTO blobs VALUES (randomblob(?))", (1 << 20,))
    connection.commit()
    connection.close()
    return machine


def text_of(result: CallToolResult) -> str:
    """The text of an answer."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def answered(client: Client, tool: str, **arguments: Any) -> Facts:
    """Call a tool that must succeed; return its structured content."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    content: Facts = result.structured_content
    return content


async def refusal(client: Client, tool: str, **arguments: Any) -> tuple[str, str]:
    """Call a tool that must refuse; return the error's code and text."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is None
    return (result.meta or {})["mcp-backup/error"]["code"], text_of(result)
