"""A small live system to back up: two SQLite databases and a project's settings, in one folder."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path

import anyio
from msgspec import Struct

from mcp_backup.engine import Engine
from mcp_backup.opening import initialise, opened
from mcp_backup.place import Place, utc_now
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import ConfigSettings, DatabaseSettings, RepositorySettings
from mcp_backup.sources.capture import fingerprints
from mcp_backup.store.store import Store

SECRET = "s3cret-of-the-project"  # noqa: S105 - planted, to be looked for where it must not be


class System(Struct, frozen=True):
    """The folder, and the settings that protect what is in it."""

    root: Path
    settings: Settings

    @property
    def notes(self) -> Path:
        return self.root / "notes.db"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks.db"

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def repository(self) -> Path:
        return self.root / "backups"

    @property
    def password(self) -> str:
        return (self.root / "backups.key").read_text().strip()

    @property
    def restic(self) -> Mapping[str, str]:
        """The environment in which a bare restic opens the repository."""
        return {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": self.password}

    @asynccontextmanager
    async def engine(
        self,
        now: Callable[[], datetime] = utc_now,
        store: Store | None = None,
        host: str = "host",
    ) -> AsyncIterator[Engine]:
        place = Place(host, "somebody", os.environ, now)
        async with opened(self.settings, place, store) as engine:
            yield engine


def settings_of(root: Path) -> Settings:
    """The settings of the system in `root`, whether it exists yet or not."""
    return Settings(
        repository=RepositorySettings(
            location=str(root / "backups"), password_file=root / "backups.key"
        ),
        databases=(
            DatabaseSettings(name="notes", path=root / "notes.db", kind="sqlite"),
            DatabaseSettings(name="tasks", path=root / "tasks.db", kind="sqlite"),
        ),
        config=(
            ConfigSettings(
                name="project",
                root=root / "project",
                include=(".env", "*.toml", "settings/*.yaml"),
            ),
        ),
        state_dir=root / "state",
    )


async def make_system(root: Path, rows: int = 200) -> System:
    """Make the files and the repository."""
    root.mkdir(parents=True, exist_ok=True)
    make_database(root / "notes.db", rows)
    make_database(root / "tasks.db", rows)
    project = root / "project"
    (project / "settings").mkdir(parents=True)
    (project / ".env").write_text(f"TOKEN={SECRET}\n")
    (project / "pyproject.toml").write_text('[project]\nname = "sample"\n')
    (project / "settings" / "server.yaml").write_text("port: 8680\n")
    (project / ".env").chmod(0o600)
    system = System(root, settings_of(root))
    await initialise(system.settings)
    return system


def make_database(path: Path, rows: int) -> None:
    """A WAL database with a table, an index and a full-text index."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        connection.execute("CREATE INDEX bodies ON notes (body)")
        connection.execute("CREATE VIRTUAL TABLE search USING fts5 (body)")
        texts = [(f"note number {n} of {path.stem}, with some words",) for n in range(rows)]
        connection.executemany("INSERT INTO notes (body) VALUES (?)", texts)
        connection.executemany("INSERT INTO search (body) VALUES (?)", texts)


async def settled(system: System) -> None:
    """Wait until nothing is so fresh that its time stamps cannot be trusted: two seconds."""
    with anyio.fail_after(10):
        while not all(await fingerprints(system.settings.sources())):  # noqa: ASYNC110 - a clock, not us
            await anyio.sleep(0.1)


def count(path: Path, table: str = "notes") -> int:
    """The rows of a table."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def bodies(path: Path) -> list[str]:
    """The content of the notes."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT body FROM notes ORDER BY id")]


def change(path: Path, body: str = "changed") -> None:
    """Change one row."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE notes SET body = ? WHERE id = 1", (body,))
