"""The README is a promise: its commands run as printed, its lists are the program's own."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mcp_backup import errors
from mcp_backup.cli.app import VERBS
from mcp_backup.errors import BackupError
from mcp_backup.server.tools import backup_tools
from mcp_backup.settings import Settings, load_settings
from mcp_backup.settings_sections import RepositorySettings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def rows_of(section: str, pattern: str) -> list[Any]:
    """Find the rows of the tables in one section."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(pattern, text, re.MULTILINE)


def tree(root: type[BackupError]) -> Iterator[type[BackupError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data/notes.db")) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE notes (text)")
        database.execute("INSERT INTO notes VALUES ('one')")
    (tmp_path / ".env").write_text("TOKEN=x\n")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_every_command_runs_as_printed(project: Path) -> None:
    if shutil.which("restic") is None:
        assert not os.environ.get("CI"), "CI installs restic"
        pytest.skip("restic is not installed")
    lines = [line for block in blocks("console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if not line.startswith("$ make ")]
    assert len(commands) >= 14
    for command in commands:
        ran = subprocess.run(
            ["bash", "-c", command], cwd=project, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    rescued = list((project / "rescued/databases/notes").iterdir())
    with closing(sqlite3.connect(rescued[0])) as database:
        assert database.execute("SELECT text FROM notes").fetchall() == [("one",)]


def test_the_python_example_runs_as_printed(project: Path) -> None:
    (example,) = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("backup_")
    assert "completed" in ran.stdout


def test_the_settings_shown_load_and_show_the_defaults(tmp_path: Path) -> None:
    example = "\n".join(blocks("toml"))  # the first a whole file, the others to be added to it
    path = tmp_path / "mcp-backup.toml"
    path.write_text(example)
    settings = load_settings(path, {}, tmp_path)
    plain = Settings(repository=RepositorySettings(location="/nowhere"))
    assert (settings.restore, settings.server) == (plain.restore, plain.server)
    assert [spec.name for spec in settings.sources()] == [
        "notes",
        "ledger",
        "akosha",
        "project",
        "mahavishnu",
        "exported",
    ]


def test_the_example_for_clients_starts_a_verb_and_names_the_default_address() -> None:
    servers = json.loads((ROOT / ".mcp.json.example").read_text())["mcpServers"]
    server = Settings(repository=RepositorySettings(location="/nowhere")).server
    assert servers["backup"]["command"] == "mcp-backup"
    assert servers["backup"]["args"][0] in VERBS
    assert servers["backup-http"]["url"] == f"http://{server.host}:{server.port}/mcp"
    assert servers["backup-http"]["url"] in README


def test_every_verb_and_every_tool_is_in_its_table() -> None:
    listed = rows_of("Commands", r"^\| `([a-z-]+)[^`]*` \| [^|\d]+ \|$")
    assert sorted(listed) == sorted(VERBS)

    async def nobody() -> None:
        raise AssertionError

    tools = [tool.name for tool in backup_tools(nobody)]  # type: ignore[arg-type]
    assert rows_of("For agents", r"^\| `([a-z_]+)` \|") == tools


def test_every_error_code_is_listed_with_its_exit_code() -> None:
    listed = rows_of("Commands", r"^\| `([a-z-]+)` \| (\d) \| (.*) \|$")
    known = [
        (error.code, str(error.exit_code), (error.__doc__ or "").splitlines()[0])
        for error in tree(BackupError)
        if error.__module__ == errors.__name__
    ]
    assert listed == known
    for code in {exit_code for _, exit_code, _ in known}:
        assert f"\n| {code} | " in README
