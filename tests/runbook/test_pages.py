"""The runbook, carried out from the printed pages against systems that are really wrecked.

Whoever carries it out knows the page, and what stands for its placeholders; nothing else.
"""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from mcp_backup.runbook.pages import OTHER_PAGES, SCENARIO_PAGES, page
from tests.runbook.conftest import ROWS, Installation
from tests.system import bodies, count

WHOLE = [f"note number {n} of notes, with some words" for n in range(ROWS)]
WALKED = {  # page → the sections beginning with "If" that are walked by some test below
    "single-server": {"data-gone", "rollback"},
    "database-corruption": {"rollback"},
    "complete-failure": set[str](),
    "data-loss": {"whole", "rollback"},
    "without-us": set[str](),
    "README": set[str](),
    "post-incident": set[str](),
}


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """The pages name restic and sqlite3."""
    for tool in ("restic", "sqlite3"):
        if shutil.which(tool) is None:
            assert not os.environ.get("CI"), f"CI installs {tool}"
            pytest.skip(f"{tool} is not installed")


def carried_out(
    installation: Installation, name: str, *arguments: str, when: str = ""
) -> list[str]:
    """Walk a page; every block that applies was run, and all was as printed."""
    applies = set(when.split(",")) | {""}
    assert applies - {""} <= WALKED[name]
    walk = installation.live(name, *arguments, *(("--when", when) if when else ()))
    assert {step["block"] for step in walk["steps"]} == {
        block.number for block in page(name).blocks if block.when in applies
    }
    return [step["command"] for step in walk["steps"]]


def test_a_server_that_was_killed_is_started_again_with_all_it_had(
    installation: Installation,
) -> None:
    with closing(sqlite3.connect(installation.database)) as database, database:
        database.execute("UPDATE notes SET body = 'written after the backup' WHERE id = 1")
    installation.served("stop")  # kill -9
    commands = carried_out(installation, "single-server", "--source", "notes")
    assert bodies(installation.database)[0] == "written after the backup"
    assert not any(" restore " in command for command in commands)


def test_a_server_whose_data_is_gone_gets_it_back_and_the_rollback_takes_it_away_again(
    installation: Installation,
) -> None:
    installation.served("stop")
    for side in ("", "-wal", "-shm"):
        installation.database.with_name(f"notes.db{side}").unlink(missing_ok=True)
    carried_out(installation, "single-server", "--source", "notes", when="data-gone,rollback")
    assert not installation.database.exists()  # its check found all rows before the rollback


def test_a_damaged_database_is_replaced_and_the_rollback_puts_the_damage_back(
    installation: Installation,
) -> None:
    installation.served("stop")
    with closing(sqlite3.connect(installation.database)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(installation.database.read_bytes())
    content[5000:9000] = os.urandom(4000)
    installation.database.write_bytes(content)
    carried_out(installation, "database-corruption", "--source", "notes", when="rollback")
    header = 100  # which counts the changes
    assert installation.database.read_bytes()[header:] == bytes(content[header:])  # rolled back
    kept = installation.root / "rescued/damaged/notes.db"
    assert kept.read_bytes() == bytes(content)


def test_from_repository_and_kit_alone_everything_comes_back(installation: Installation) -> None:
    installation.served("stop")
    config, key = installation.config, installation.system / "backups.key"
    before = {
        path: path.read_bytes()
        for path in installation.system.rglob("*")
        if path.is_file() and path.suffix in (".py", ".toml")
    }
    newest = installation.ours("list", "--limit", "1").stdout
    shutil.rmtree(installation.system)
    assert sorted(path.name for path in installation.vault.iterdir()) == ["backups", "kit.txt"]
    values = {
        "kit": installation.vault / "kit.txt",
        "config": config,
        "password_file": key,
        "order": "notes, tasks",
    }
    words = [word for name, path in values.items() for word in ("--value", f"{name}={path}")]
    server = f"{shutil.which('python3')} {installation.system}/serve.py"
    for verb in ("stop", "start", f"check {ROWS}"):
        words += ["--value", f"{verb.split()[0]}={server} {verb}"]
    carried_out(installation, "complete-failure", *words)
    assert bodies(installation.database) == WHOLE
    assert {path: path.read_bytes() for path in before} == before
    assert newest.split()[0] in installation.ours("list").stdout
    report = installation.vault / "report.md"
    assert installation.ours("evidence", "--out", str(report)).returncode == 0
    assert "| complete-failure | live |" in report.read_text()


def test_deleted_rows_come_back_and_newer_ones_stay(installation: Installation) -> None:
    with closing(sqlite3.connect(installation.database)) as database, database:
        database.execute("DELETE FROM notes WHERE id BETWEEN 10 AND 20")
        database.execute("UPDATE notes SET body = 'written since' WHERE id = 1")
    carried_out(installation, "data-loss", "--source", "notes", "--value", "table=notes")
    assert bodies(installation.database) == ["written since", *WHOLE[1:]]


def test_going_back_as_a_whole_and_the_rollback_of_it(installation: Installation) -> None:
    with closing(sqlite3.connect(installation.database)) as database, database:
        database.execute("DELETE FROM notes WHERE id > 20")
    arguments = ("--source", "notes", "--value", "table=notes")
    carried_out(installation, "data-loss", *arguments, when="whole,rollback")
    assert count(installation.database) == 20  # the rollback is the state before anything


def test_restic_and_the_kit_alone_bring_everything_back(installation: Installation) -> None:
    installation.served("stop")
    shutil.rmtree(installation.system)
    kit = f"kit={installation.vault}/kit.txt"
    commands = carried_out(installation, "without-us", "--value", kit)
    assert not any(
        "mcp-backup " in command.replace("--tag mcp-backup ", "") for command in commands
    )
    assert bodies(installation.database) == WHOLE
    assert count(installation.system / "data/tasks.db") == ROWS
    assert (installation.system / "serve.py").exists()
    assert installation.config.exists()


def test_the_pages_around_it_run_too(installation: Installation) -> None:
    printed = installation.ours("runbook", "print", "single-server", "--source", "notes").stdout
    assert f"export MCP_BACKUP_CONFIG={installation.config}" in printed
    assert "{{" not in printed
    declined = installation.ours("runbook", "live", "single-server", "--source", "tasks")
    assert declined.returncode in (3, 5)  # the server answers, and nobody is there to ask
    table = installation.ours("runbook", "tabletop", "data-loss", "--json")
    assert table.returncode == 0, table.stderr
    carried_out(installation, "README")
    carried_out(installation, "post-incident")
    listed = installation.ours("history", "--verb", "walk", "--json").stdout
    runs = list(reversed(json.loads(listed)["runs"]))
    assert [(run["subject"], run["outcome"]) for run in runs] == [
        ("single-server", "findings" if declined.returncode == 3 else "cancelled"),
        ("data-loss", "completed"),
        ("README", "completed"),
        ("post-incident", "completed"),
    ]
    assert runs[1]["message"].startswith("tabletop, ")
    assert runs[2]["message"].endswith(" steps, as printed")
    assert runs[2]["duration"] > 0
    assert runs[2]["begun"] < runs[2]["ended"]
    assert "talked through" in runs[1]["message"]
    assert "Walked: not yet; " in installation.ours("runbook", "print", "data-loss").stdout
    assert "(The commands here took " in installation.ours("runbook", "print", "README").stdout


def test_a_page_is_drilled_to_its_end_where_nothing_is_broken(installation: Installation) -> None:
    before = count(installation.database)
    kit = f"kit={installation.vault}/kit.txt"
    drilled = installation.ours("runbook", "drill", "complete-failure", "--value", kit, "--json")
    assert drilled.returncode == 0, drilled.stdout
    walk = json.loads(drilled.stdout)["walk"]
    assert {step["outcome"] for step in walk["steps"]} == {"as printed", "not run"}
    assert count(installation.database) == before


def test_every_block_of_every_page_is_run_by_these_tests() -> None:
    for name in (*SCENARIO_PAGES, *OTHER_PAGES):
        found = {block.when for block in page(name).blocks} - {""}
        assert found == WALKED.get(name, set()), name
        assert name in WALKED or not page(name).blocks, name
