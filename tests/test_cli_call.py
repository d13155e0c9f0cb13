"""Restores called as an agent would, by a person at a terminal and by a program."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_backup.shim import install_shim
from tests.test_cli import Run, backed_up, begun, command, project, run, texts, typed, wreck

__all__ = ["backed_up", "begun", "project", "run"]  # fixtures

RESTORE = ("call", "restore_backup", "--backup_id", "latest", "--components", "databases,config")


def database(project: Path) -> Path:
    return project / "notes.db"


def test_a_person_at_a_terminal_sees_the_plan_agrees_and_the_restore_goes_on(
    project: Path, backed_up: Run
) -> None:
    path = database(project)
    before = texts(path)
    wreck(path)
    code, seen = typed(project, "all 3\n", *RESTORE)
    assert code == 0, seen
    assert texts(path) == before
    assert "restored in" in seen


def test_a_person_who_does_not_agree_keeps_what_is_there(project: Path, backed_up: Run) -> None:
    path = database(project)
    wreck(path)
    code, seen = typed(project, "no\n", *RESTORE)
    assert code == 5
    assert "restore-declined" in seen
    assert texts(path) == []


@pytest.mark.parametrize("served", [False, True])
def test_without_a_terminal_the_plan_and_the_command_that_approves_it_are_told(
    project: Path, backed_up: Run, served: bool
) -> None:
    path = database(project)
    before = texts(path)
    wreck(path)
    server = subprocess.Popen(
        command("serve", "--http", "--port", "0"), cwd=project, stderr=subprocess.PIPE
    )
    try:
        assert server.stderr is not None
        address = next(line for line in server.stderr if b"serving at" in line).split()[-1].decode()
        url = ("--url", address) if served else ()
        told = backed_up(*RESTORE, *url, "--json")
        assert told.code == 5
        plan = told.answer["plan_id"]
        assert f"mcp-backup approve {plan}" in json.loads(told.err)["error"]["hint"]
        assert texts(path) == []
        assert backed_up("approve", plan, "--yes").code == 0
        assert backed_up("call", "restore_backup", "--plan_id", plan, *url).code == 0
        assert texts(path) == before
    finally:
        server.terminate()
        server.communicate()


@contextmanager
def daemon(project: Path) -> Iterator[str]:
    """A server over HTTP; gives its address."""
    words = command("serve", "--http", "--port", "0")
    with subprocess.Popen(words, cwd=project, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            line = next(line for line in server.stderr if b"serving at" in line)
            yield line.split()[-1].decode()
        finally:
            server.terminate()


@pytest.mark.parametrize("served", [False, True])
def test_the_lines_of_the_original_work_as_printed(
    project: Path, begun: Run, tmp_path: Path, served: bool
) -> None:
    """Typed as `mahavishnu mcp call ...`, with a server running and without one."""
    shims = tmp_path / "shims"
    environment = dict(os.environ, PATH=f"{shims}:/usr/bin:/bin")
    install_shim(shims, tuple(command()), environment["PATH"])

    def mahavishnu(line: str) -> subprocess.CompletedProcess[str]:
        words = ["bash", "-c", f"mahavishnu mcp call {line}"]
        return subprocess.run(
            words, cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    with daemon(project) as address:
        if served:
            environment["MCP_BACKUP_URL"] = address
        created = mahavishnu("create_backup --backup_type full --verify true")
        assert created.returncode == 0, created.stderr
        listed = mahavishnu("list_backups")
        assert listed.returncode == 0, listed.stderr
        (backup,) = {word for word in listed.stdout.split() if word.startswith("backup_")}
        wreck(database(project))
        line = f"restore_backup --backup_id {backup} --components databases,config"
        planned = mahavishnu(line)
    assert planned.returncode == 5
    assert "mcp-backup approve plan_" in planned.stdout + planned.stderr
    assert texts(database(project)) == []
