"""Live data of each kind below one directory, with a backup of them: what a dying restore meets.

A world has one source of its kind, and beside it `saboteur`, which comes after it in a restore
and can be made to fail. All that a restore changes is in `live`, or on the world's server, so the
moment of a kill can be kept (`photograph`) and had again (`develop`).
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from mcp_backup.settings import Settings
from mcp_backup.settings_table import checked
from mcp_backup.sources.duckdb import content_digest
from mcp_backup.sources.glance import SETTLED_NS
from tests.duckdb.ducks import left_open, make, run
from tests.postgres import conftest as postgres
from tests.system import System, bodies, change, make_database
from tests.workflows.conftest import GIVING, READING, TAKING, Keeper, flow

Contents = Mapping[str, object]
SABOTEUR = "workflows/saboteur"
_OURS = re.compile(r"-tmp-[0-9a-f]{16}|^\.mcp-backup-")


@dataclass(frozen=True)
class World:
    """What is the same for all kinds. `key` is the source's in a journal."""

    root: Path
    at: Mapping[str, Any] = field(default_factory=dict)  # what leads to its server
    key = ""
    verified = False  # by its backup

    @property
    def live(self) -> Path:
        return self.root / "live"

    @property
    def system(self) -> System:
        """All of it."""
        saboteur = {"name": "saboteur", "path": self.live / "saboteur"}
        sources = self.sources()
        return self._system({**sources, "workflows": (*sources.get("workflows", ()), saboteur)})

    @property
    def alone(self) -> System:
        """The source of the world's kind alone, with the same backup."""
        return self._system(self.sources())

    def _system(self, sources: Mapping[str, Any]) -> System:
        where = {"location": str(self.root / "backups"), "password_file": self.root / "backups.key"}
        settings = {"repository": where, "state_dir": self.root / "state", **sources}
        return System(self.live, checked(Settings, settings))

    def sources(self) -> dict[str, Any]:
        raise NotImplementedError

    def make(self) -> None:
        raise NotImplementedError

    def wreck(self) -> None:
        raise NotImplementedError

    def contents(self) -> Contents:
        """What a restore changes, in the parts of which each has to be old or new."""
        raise NotImplementedError

    def exchange_half(self, staged: Path) -> None:
        """Do by hand what a worker has done that is killed in the middle of the exchange."""
        raise NotImplementedError

    def begin(self) -> None:
        self.live.mkdir()
        (self.live / "saboteur").mkdir()
        (self.live / "saboteur" / "flow.json").write_text("{}")
        self.make()

    def damage(self) -> None:
        (self.live / "saboteur" / "flow.json").write_text('{"wrecked": true}')
        self.wreck()

    def settle(self) -> None:
        """Let it be as it is when somebody restores it; comes before each restore."""

    def left(self, points: int) -> list[str]:
        """What is still there of a restore that is over, when there are so many undo points."""
        found = [str(path) for path in self.live.rglob("*") if _OURS.search(path.name)]
        return found + [str(path) for path in self.live.glob("restorer/restores/*/staged")]

    def state(self) -> str:
        """What tells one moment from another."""
        digest = blake3()
        for path in sorted(self.live.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            digest.update(f"{path} {path.lstat().st_mode} {len(content)} ".encode() + content)
        return digest.hexdigest()

    def photograph(self, into: Path) -> Path:
        subprocess.run(["cp", "-a", self.live, into], check=True)
        return into

    def develop(self, photo: Path) -> None:
        shutil.rmtree(self.live)
        subprocess.run(["cp", "-a", photo, self.live], check=True)


class SqliteWorld(World):
    """A database in WAL mode."""

    key = "databases/notes"

    def sources(self) -> dict[str, Any]:
        return {"databases": [{"name": "notes", "path": self.live / "notes.db", "kind": "sqlite"}]}

    def make(self) -> None:
        make_database(self.live / "notes.db", rows=20)

    def wreck(self) -> None:
        change(self.live / "notes.db")

    def contents(self) -> Contents:
        return {"notes.db": bodies(self.live / "notes.db")}


class QuietWorld(SqliteWorld):
    """One that nobody has written to for a while: its undo point is taken ahead."""

    verified = True  # so that this is while it is staged

    def settle(self) -> None:
        time.sleep(SETTLED_NS / 1e9 + 0.1)


class FilesWorld(World):
    """A project's settings: one is changed, one missing, one in the way of a directory."""

    key = "config/project"

    @property
    def project(self) -> Path:
        return self.live / "project"

    def sources(self) -> dict[str, Any]:
        include = (".env", "*.toml", "settings/*.yaml")
        return {"config": [{"name": "project", "root": self.project, "include": include}]}

    def make(self) -> None:
        (self.project / "settings").mkdir(parents=True)
        (self.project / ".env").write_text("TOKEN=secret\n")
        (self.project / ".env").chmod(0o600)
        (self.project / "pyproject.toml").write_text("[project]\n")
        (self.project / "settings" / "server.yaml").write_text("port: 8680\n")

    def wreck(self) -> None:
        (self.project / ".env").write_text("TOKEN=wrecked\n")
        (self.project / "settings" / "server.yaml").unlink()

    def contents(self) -> Contents:
        return {
            str(path.relative_to(self.project)): (path.read_bytes(), path.stat().st_mode)
            for path in self.project.rglob("*")
            if path.is_file()
        }

    def exchange_half(self, staged: Path) -> None:
        shutil.copy2(staged / ".env", self.project / ".env")


class DuckWorld(World):
    """A DuckDB database whose last rows are in its log."""

    key = "databases/memories"
    names: tuple[str, ...] = ("memories.duckdb",)
    _known: dict[str, str] = {}  # noqa: RUF012 - of all of them: digests by the bytes read

    def sources(self) -> dict[str, Any]:
        path = self.live / "memories.duckdb"
        return {"databases": [{"name": "memories", "path": path, "kind": "duckdb"}]}

    def make(self) -> None:
        make(self.live / self.names[0])
        left_open(self.live / self.names[0], "INSERT INTO notes VALUES (9000, 'in the log')")

    def wreck(self) -> None:
        left_open(self.live / self.names[0], "DELETE FROM notes WHERE id < 100")

    def contents(self) -> Contents:
        there = [name for name in self.names if (self.live / name).exists()]
        return {name: self._content(self.live / name) for name in there}

    def _content(self, path: Path) -> str:
        family = [(file.name, file.read_bytes()) for file in path.parent.glob(f"{path.name}*")]
        family = [one for one in family if not _OURS.search(one[0])]
        seen = blake3(repr(sorted(family)).encode()).hexdigest()
        if seen not in self._known:
            self._known[seen] = content_digest("memories", path)
        return self._known[seen]


class ShardsWorld(DuckWorld):
    """A directory of DuckDB databases: one changed, one gone, one that the backup has not."""

    names = ("akosha/0/a.duckdb", "akosha/1/b.duckdb", "akosha/later.duckdb")

    def sources(self) -> dict[str, Any]:
        return {"databases": [{"name": "memories", "path": self.live / "akosha"}]}

    def make(self) -> None:
        super().make()
        make(self.live / self.names[1])

    def wreck(self) -> None:
        run(self.live / self.names[0], "DELETE FROM notes WHERE id < 100")
        (self.live / self.names[1]).unlink()
        make(self.live / self.names[2])

    def exchange_half(self, staged: Path) -> None:
        (self.live / "akosha" / "1").mkdir(exist_ok=True)
        shutil.copy2(staged / "1" / "b.duckdb", self.live / self.names[1])


class PostgresWorld(World):
    """A database of a server that nobody else uses."""

    key = "databases/app"

    @property
    def server(self) -> postgres.Server:
        return postgres.Server(Path(self.at["home"]), Path(self.at["bin"]), self.at["port"])

    def sources(self) -> dict[str, Any]:
        source = {"name": "app", "kind": "postgres", "dbname": "app", "user": "postgres"}
        where = {"host": self.at["home"], "port": self.at["port"]}
        return {"databases": [source | where]}

    def make(self) -> None:
        self.server.sql("postgres", "CREATE DATABASE app")
        self.server.sql(
            "app",
            "CREATE TABLE accounts (id int PRIMARY KEY, owner text)",
            "CREATE VIEW owners AS SELECT owner FROM accounts",
            "INSERT INTO accounts SELECT n, 'owner ' || n FROM generate_series(1, 20) n",
        )

    def wreck(self) -> None:
        self.server.sql("app", "DELETE FROM accounts WHERE id < 10", "DROP VIEW owners")

    def contents(self) -> Contents:
        rows = "SELECT array_agg(a ORDER BY id)::text, to_regclass('owners')::text FROM accounts a"
        return {"app": self.server.sql("app", rows)}

    def left(self, points: int) -> list[str]:
        """Beside the live database is one for each undo point, and nothing else."""
        others = {*self.server.databases()} - {"app", "postgres"}
        kept = {name for name in others if name.startswith("app_undo_")}
        return [*super().left(points), *(others if len(kept) != points else others - kept)]

    def state(self) -> str:
        return super().state() + self._databases()

    def photograph(self, into: Path) -> Path:
        """The server is stopped for it where it is as nobody has seen it yet."""
        now = self._databases()
        kept = self.root / blake3(now.encode()).hexdigest()
        if not kept.exists():
            with self._stopped():
                subprocess.run(["cp", "-a", self.server.home / "data", kept], check=True)
        super().photograph(into)
        into.with_suffix(".server").symlink_to(kept)
        into.with_suffix(".databases").write_text(now)
        return into

    def develop(self, photo: Path) -> None:
        if photo.with_suffix(".databases").read_text() != self._databases():
            with self._stopped():
                shutil.rmtree(self.server.home / "data")
                kept = photo.with_suffix(".server").resolve()
                subprocess.run(["cp", "-a", kept, self.server.home / "data"], check=True)
        super().develop(photo)

    def _databases(self) -> str:
        """Which databases there are, by all that an exchange or a clearing away changes."""
        about = "oid, datname, datallowconn, shobj_description(oid, 'pg_database')"
        rows = self.server.sql("postgres", f"SELECT {about} FROM pg_database ORDER BY oid")
        return f"{rows} {self.contents()}"

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        self.server.stop()
        yield
        self.server.start()


class WorkflowsWorld(World):
    """Workflows of an MCP server that keeps them in a file of the world's."""

    key = "workflows/flows"

    @property
    def keeper(self) -> Keeper:
        return Keeper(self.root, self.live / "state.json", self.at["url"])

    def sources(self) -> dict[str, Any]:
        return {"workflows": ({**READING, **GIVING, **TAKING, "url": self.at["url"]},)}

    def make(self) -> None:
        flows = {key: flow(key) for key in ("deploy", "nightly", "weekly")}
        self.keeper.state.write_text(json.dumps({"workflows": flows}))

    def wreck(self) -> None:
        self.keeper.put("deploy", None)
        self.keeper.put("nightly", flow("nightly", step=9))

    def contents(self) -> Contents:
        return self.keeper.workflows()

    def exchange_half(self, staged: Path) -> None:
        self.keeper.put("deploy", json.loads((staged / "deploy.json").read_bytes()))


WORLDS: Mapping[str, type[World]] = {
    "sqlite": SqliteWorld,
    "quiet": QuietWorld,
    "files": FilesWorld,
    "duckdb": DuckWorld,
    "shards": ShardsWorld,
    "postgres": PostgresWorld,
    "workflows": WorkflowsWorld,
}
PIECE_BY_PIECE = ("files", "shards", "workflows")  # the others are exchanged in one step


def told(kind: str, world: World) -> str:
    """How another process comes to the world."""
    return json.dumps({"kind": kind, "root": str(world.root), "at": dict(world.at)})


def found(words: str) -> World:
    document = json.loads(words)
    return WORLDS[document["kind"]](Path(document["root"]), document["at"])
