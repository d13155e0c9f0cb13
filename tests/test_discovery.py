import json
import os
import sqlite3
import time
from itertools import count
from pathlib import Path

import pytest

from mcp_backup.cli.settings_text import Proposal, settings_text
from mcp_backup.discovery import Found, find
from mcp_backup.settings import load_settings


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    cwd = tmp_path / "project"
    cwd.mkdir()
    return cwd


def database(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    return path


def looked(cwd: Path, home: Path, *passed_over: Path) -> Found:
    return find(cwd, home, passed_over=frozenset(passed_over), clock=time.monotonic)


def test_databases_are_told_by_their_headers_and_not_by_their_names(cwd: Path, home: Path) -> None:
    here = database(cwd / "data" / "memories.bin")
    (cwd / "fake.db").write_bytes(b"not a database")
    (cwd / "duck.db").write_bytes(b"12345678DUCK" + bytes(100))
    found = looked(cwd, home)
    assert [(item.path, item.kind, item.near) for item in found.databases] == [
        (cwd / "duck.db", "duckdb", True),
        (here, "sqlite", True),
    ]
    assert found.complete


def test_two_of_one_name_get_names_of_their_own(cwd: Path, home: Path) -> None:
    database(cwd / "a" / "Notes 1.db")
    database(cwd / "b" / "notes-1.db")
    assert [item.name for item in looked(cwd, home).databases] == ["notes-1", "notes-1-2"]


def test_side_files_links_environments_and_repositories_are_passed_over(
    cwd: Path, home: Path
) -> None:
    real = database(cwd / "real.db")
    (cwd / "link.db").symlink_to(real)
    os.link(real, cwd / "real.db-wal")
    for place in (".git", "node_modules", ".venv", "backups"):
        database(cwd / place / "x.db")
    repository = cwd / "other"
    database(repository / "data" / "x.db")
    (repository / "config").write_bytes(b"")
    (repository / "snapshots").mkdir()
    os.mkfifo(cwd / "pipe.db")
    assert [item.path for item in looked(cwd, home, cwd / "backups").databases] == [real]


def test_what_a_server_is_started_with_is_near_wherever_it_lies(
    cwd: Path, home: Path, tmp_path: Path
) -> None:
    path = database(tmp_path / "elsewhere" / "m.sqlite")
    servers = {
        "Memory": {"command": "x", "args": [f"--db={path}"], "env": {"TOKEN": "secret"}},
        "other": {"command": "y", "env": {"DB": "~/none.db"}},
        "odd": "not an object",
    }
    (cwd / ".mcp.json").write_text(json.dumps({"mcpServers": servers}))
    found = looked(cwd, home)
    assert [(item.name, item.path, item.near) for item in found.databases] == [
        ("memory", path, True)
    ]
    assert found.servers == ("Memory", "odd", "other")
    assert "secret" not in repr(found)


def test_what_lies_in_usual_places_is_found_and_not_near(cwd: Path, home: Path) -> None:
    path = database(home / ".local/share/app/store.db")
    database(home / ".local/share/app/unnamed")
    assert [(item.path, item.near) for item in looked(cwd, home).databases] == [(path, False)]


def test_below_a_home_directory_nothing_is_near_by_itself(home: Path) -> None:
    database(home / "projects" / "x.db")
    assert looked(home, home).databases == ()


def test_settings_files_are_found_as_patterns(cwd: Path, home: Path) -> None:
    (cwd / ".env").write_text("TOKEN=x")
    (cwd / "settings").mkdir()
    (cwd / "settings" / "a.yaml").write_text("")
    (files,) = looked(cwd, home).files
    assert (files.name, files.root) == ("project", cwd)
    assert files.include == (".env", "settings/*.yaml")


def test_a_search_that_runs_out_of_time_says_so(cwd: Path, home: Path) -> None:
    for number in range(20):
        database(cwd / str(number) / "x.db")
    ticks = count()
    found = find(cwd, home, passed_over=frozenset(), clock=lambda: float(next(ticks)))
    assert not found.complete
    assert len(found.databases) < 20


def test_an_unreadable_directory_is_passed_by(cwd: Path, home: Path) -> None:
    path = database(cwd / "a.db")
    (cwd / "gone").symlink_to(cwd / "nowhere")
    (cwd / ".mcp.json").write_text("{ not json")
    assert [item.path for item in looked(cwd, home).databases] == [path]


def test_servers_whose_tools_are_known_are_proposed_as_workflows(cwd: Path, home: Path) -> None:
    memory = {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory"]}
    servers = {
        "memory": memory | {"env": {"MEMORY_FILE_PATH": "/m.jsonl", "TOKEN": "s3cret"}},
        "mahavishnu": {"url": "http://localhost:8680/mcp"},
        "other": {"command": "other", "args": []},
    }
    (cwd / ".mcp.json").write_text(json.dumps({"mcpServers": servers}))
    found = looked(cwd, home).workflows
    assert [item.name for item in found] == ["memory-entities", "memory-relations", "mahavishnu"]
    assert found[0].settings["environment"] == {"MEMORY_FILE_PATH": "/m.jsonl"}
    assert "s3cret" not in str(found)


def test_what_is_proposed_for_servers_can_be_written_and_read(cwd: Path, home: Path) -> None:
    memory = {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory"]}
    (cwd / ".mcp.json").write_text(json.dumps({"mcpServers": {"memory": memory}}))
    found = looked(cwd, home)
    proposal = Proposal("./backups", "./backups.key", (), (), (), found.workflows)
    (cwd / "mcp-backup.toml").write_text(settings_text(proposal, cwd, home))
    settings = load_settings(None, {}, cwd)
    assert [spec.name for spec in settings.sources()] == ["memory-entities", "memory-relations"]
    assert settings.sources()[0].options["restore"]["tool"] == "create_entities"


def duck(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345678DUCK" + bytes(100))
    return path


def test_duckdb_files_that_are_plainly_shards_are_one_database(cwd: Path, home: Path) -> None:
    for number in range(3):
        duck(cwd / "warm" / f"{number}.duckdb")
        duck(cwd / "hot" / f"shard-{number}" / "memories.duckdb")
    for name in ("a", "b"):
        duck(cwd / "data" / f"{name}.duckdb")
    found = [(item.name, item.path, item.size) for item in looked(cwd, home).databases]
    assert found == [
        ("a", cwd / "data" / "a.duckdb", 112),
        ("b", cwd / "data" / "b.duckdb", 112),
        ("hot", cwd / "hot", 336),
        ("warm", cwd / "warm", 336),
    ]


def test_postgresql_databases_are_proposed_without_their_passwords(cwd: Path, home: Path) -> None:
    address = "postgresql://app:s3cret@db.example:5433/ledger?sslmode=require&password=s3cret"
    servers = {"books": {"command": "books", "args": [], "env": {"DATABASE_URL": address}}}
    (cwd / ".mcp.json").write_text(json.dumps({"mcpServers": servers}))
    (home / ".pg_service.conf").write_text("[archive]\nhost=h\ndbname=old\npassword=s3cret\n")
    found = looked(cwd, home)
    assert "s3cret" not in str(found)
    proposal = Proposal("./b", "./b.key", (), (), (), (), found.postgres)
    text = settings_text(proposal, cwd, home)
    (cwd / "mcp-backup.toml").write_text(text)
    assert "s3cret" not in text
    ledger, old = load_settings(None, {}, cwd).sources()
    assert (ledger.name, ledger.kind) == ("books-ledger", "postgres")
    assert ledger.path == "postgresql://app@db.example:5433/ledger"
    assert old.options["connection"] == {"service": "archive", "dbname": "old"}


def test_directories_of_documents_are_proposed_as_workflows(cwd: Path, home: Path) -> None:
    for place in ("workflows/deep/a.json", "My App/workflows/b.json", ".github/workflows/c.yaml"):
        (cwd / place).parent.mkdir(parents=True)
        (cwd / place).write_text("{}")
    for place in ("node_modules/workflows/d.json", "other/flows/e.json"):
        (cwd / place).parent.mkdir(parents=True)
        (cwd / place).write_text("{}")
    found = looked(cwd, home).workflows
    proposal = Proposal("./backups", "./backups.key", (), (), (), found)
    (cwd / "mcp-backup.toml").write_text(settings_text(proposal, cwd, home))
    settings = load_settings(cwd / "mcp-backup.toml", {}, cwd)
    assert [(source.name, source.path) for source in settings.workflows] == [
        ("workflows", cwd / "workflows"),
        ("my-app-workflows", cwd / "My App" / "workflows"),
    ]
    assert [item.told for item in found][:1] == [f"JSON documents in {cwd / 'workflows'}"]
