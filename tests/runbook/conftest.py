"""An installation to wreck: a server on a live database, its settings, a repository, a kit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system import count, make_database

ROWS = 50
SERVER = Path(__file__).parent / "serve.py"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Installation:
    """`system` is what can be lost, `vault` what is left: repository and kit."""

    root: Path

    @property
    def system(self) -> Path:
        return self.root / "system"

    @property
    def vault(self) -> Path:
        return self.root / "vault"

    @property
    def config(self) -> Path:
        return self.system / "mcp-backup.toml"

    @property
    def database(self) -> Path:
        return self.system / "data/notes.db"

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environ, capture_output=True, text=True, check=False
        )

    def ours(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = ("--config", str(self.config)) if self.config.exists() else ()
        return self.run("mcp-backup", *config, *arguments)

    def served(self, verb: str) -> None:
        """Start or stop the server."""
        if (self.system / "serve.py").exists():
            assert self.run(sys.executable, str(self.system / "serve.py"), verb).returncode == 0

    def live(self, page: str, *arguments: str) -> dict[str, Any]:
        """Carry a page out as printed, with nobody to ask; it must come to its end."""
        ran = self.ours("runbook", "live", page, "--yes", "--json", *arguments)
        assert ran.returncode in (0, 3), ran.stderr
        walk: dict[str, Any] = json.loads(ran.stdout)["walk"]
        wrong = [step for step in walk["steps"] if step["outcome"] != "as printed"]
        assert wrong == [], self.shown(wrong)
        assert walk["complete"]
        assert ran.returncode == 0
        return walk

    def shown(self, steps: list[dict[str, Any]]) -> str:
        return json.dumps(steps, indent=1)


def settings_text(root: Path) -> str:
    server = f"{sys.executable} {root}/system/serve.py"
    return f"""\
state_dir = "{root}/system/state"

[repository]
location = "{root}/vault/backups"
password_file = "{root}/system/backups.key"

[recovery]
start_order = ["notes", "tasks"]
stop = "{server} stop"
start = "{server} start"
check = "{server} check {ROWS}"

[[databases]]
name = "notes"
path = "{root}/system/data/notes.db"
checks = [{{ query = "SELECT count(*) FROM notes", expect = ">= 40" }}]

[[databases]]
name = "tasks"
path = "{root}/system/data/tasks.db"

[[config]]
name = "system"
root = "{root}/system"
include = ["mcp-backup.toml", "serve.py"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The installation, whole, and a copy of it to begin each test from."""
    here = Installation(tmp_path_factory.mktemp("installation") / "root")
    (here.system / "data").mkdir(parents=True)
    here.vault.mkdir()
    for name in ("notes", "tasks"):
        make_database(here.system / f"data/{name}.db", ROWS)
    shutil.copy(SERVER, here.system / "serve.py")
    here.config.write_text(settings_text(here.root))
    program = (
        "import anyio, pathlib, mcp_backup.opening as o, mcp_backup.settings as s; "
        f"anyio.run(o.initialise, s.load_settings(pathlib.Path({str(here.config)!r}), {{}}, "
        "pathlib.Path.cwd()))"
    )
    assert here.run(sys.executable, "-c", program).returncode == 0
    for arguments in (
        ("create", "--note", "older"),
        ("create", "--note", "newest"),
        ("key", "recovery-kit", "--out", str(here.vault / "kit.txt")),
    ):
        ran = here.ours(*arguments)
        assert ran.returncode == 0, ran.stderr
    shutil.copytree(here.root, here.root.with_name("pristine"), symlinks=True)
    return here


@pytest.fixture
def installation(made: Installation) -> Iterator[Installation]:
    """The installation at its place, whole, its server running."""
    shutil.rmtree(made.root)
    shutil.copytree(made.root.with_name("pristine"), made.root, symlinks=True)
    made.served("start")
    yield made
    made.served("stop")
    assert count(made.system / "data/tasks.db") == ROWS if made.database.exists() else True
