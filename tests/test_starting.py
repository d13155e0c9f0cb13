"""Starting quickly: nobody waits for the loading of what their command does not use.

Counted in modules, which are the same on every machine, and not in milliseconds, which are not.
"""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

_SERVERS = {"mcp", "starlette", "uvicorn", "httpx2", "jwt", "apscheduler"}
_MODELS = {"pydantic", "pydantic_core", "annotated_types"}
_LIBRARIES = {"duckdb", "apsw", "psycopg", "prometheus_client", "rich"}

_PROGRAM = """
import sys
from mcp_backup.cli.app import run
code = run(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, settings and a repository with one backup."""
    place = tmp_path_factory.mktemp("project")
    with closing(sqlite3.connect(place / "notes.db")) as database, database:
        database.execute("CREATE TABLE rows (text)")
    for verb in (["init", "--yes"], ["create"]):
        loaded(place, *verb)
    return place


def loaded(place: Path, *arguments: str) -> set[str]:
    """Run the program in a process of its own; return the modules it loaded, and their packages."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        cwd=place,
        env={"PATH": os.environ["PATH"], "HOME": str(place.with_name("home"))},
        stdin=subprocess.DEVNULL,  # at whose end a server ends
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command",
    ["create --backup_type incremental", "list", "check", "restore --dry-run", "prune --dry-run"],
)
def test_a_command_loads_no_server_and_no_library_of_a_database(
    project: Path, command: str
) -> None:
    assert loaded(project, *command.split()) & (_SERVERS | _LIBRARIES) == set()


@pytest.mark.parametrize(
    "command",
    [
        "create --backup_type incremental",
        "list --limit 3 --backup_type full",
        "verify latest --level structure",
        "status",
        "history --verb create",
        "check",
        "restore --dry-run --databases notes",
        "forget --dry-run",
        "prune --dry-run",
        "undo --list",
        "key list",
        "doctor",
        "evidence",
        "runbook list",
    ],
)
def test_a_command_loads_no_library_of_models(project: Path, command: str) -> None:
    """Which servers need, and typer for words that are not plain."""
    assert loaded(project, *command.split()) & _MODELS == set()


_RESTORES = {"mcp_backup.restore.journal", "mcp_backup.restore.swap", "mcp_backup.restore.stager"}
_RESTORES |= {"mcp_backup.verbs_restores"}
_BACKUPS = {"mcp_backup.backup", "mcp_backup.sources.capture", "mcp_backup.repository.writer"}
_PROOFS = {"mcp_backup.proof", "mcp_backup.drill_facts"}
_CHECKS = {"mcp_backup.repository.check", "mcp_backup.verbs_upkeep"}
_POLICY = {"mcp_backup.retention"}
_JSON = {"mcp_backup.server.replies"}


@pytest.mark.parametrize(
    ("command", "others"),
    [
        (
            "create --backup_type incremental --no-verify",
            _RESTORES | _PROOFS | _CHECKS | _JSON | _POLICY,
        ),
        ("list", _RESTORES | _PROOFS | _CHECKS | _BACKUPS | _JSON),
        ("check", _RESTORES | _PROOFS | _BACKUPS | _JSON | _POLICY),
        ("restore --dry-run", _PROOFS | _CHECKS | _JSON),
    ],
)
def test_a_command_loads_nothing_of_what_others_do(
    project: Path, command: str, others: set[str]
) -> None:
    assert loaded(project, *command.split()) & others == set()


def test_a_server_of_one_client_loads_nothing_that_serves_many(project: Path) -> None:
    of_many = {"h11", "jwt", "mcp_backup.server.http", "mcp_backup.server.oauth"}
    later = {"mcp_backup.alerts", "mcp_backup.verbs_restores", "mcp_backup.status_report"}
    assert loaded(project, "serve") & (of_many | later | _LIBRARIES - {"rich"}) == set()
