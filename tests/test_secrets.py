"""The password: in no log, answer, error, file or process list, and files are private to us."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mcp_backup.cli.app import run as program

MARK = "pa55-marked-mark"
VERBS = (
    ("create", "--note", "a note"),
    ("list", "--json"),
    ("status",),
    ("history",),
    ("verify", "--level", "restore"),
    ("restore", "--target", "scratch"),
    ("key", "list"),
    ("key", "recovery-kit", "--out", "kit"),
    ("check", "--level", "data"),
    ("export", "--out", "out.tar", "--format", "tar"),
    ("drill",),
    ("evidence", "--out", "report.html"),
    ("metrics",),
    ("forget", "--yes"),
    ("prune",),
    ("alerts",),
    ("runbook", "print", "database-corruption"),
    ("doctor",),
    ("call", "list_backups"),
    ("verify", "no-such-backup"),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose password is in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCP_BACKUP_PASSWORD", MARK)
    monkeypatch.setenv("MCP_BACKUP_STATE_DIR", str(tmp_path / "state"))
    with closing(sqlite3.connect("notes.db")) as database, database:
        database.execute("CREATE TABLE rows (text)")
    return tmp_path


def test_no_verb_tells_the_password_to_anybody(
    project: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert program(["init", "--yes"]) == 0
    for arguments in VERBS:
        assert program([*arguments, "--verbose"]) in (0, 2, 3), arguments
    os.environ["MCP_BACKUP_PASSWORD"] = f"{MARK}-wrong"
    assert program(["list"]) == 1
    shown = capsys.readouterr()
    assert shown.out
    assert MARK not in shown.out + shown.err + caplog.text
    written = [path for path in project.rglob("*") if path.is_file()]
    assert [path.name for path in written if MARK.encode() in path.read_bytes()] == ["kit"]


def test_no_process_list_and_no_childs_environment_has_the_password(project: Path) -> None:
    assert program(["init", "--yes"]) == 0
    create = ("create", "--no-verify")
    for arguments in (create, ("key", "prove-kit", "--kit", "kit")):
        assert program(["key", "recovery-kit", "--out", "kit"]) in (0, 2)  # 2: it is there
        with subprocess.Popen(
            [sys.executable, "-m", "mcp_backup", *arguments], stdout=subprocess.DEVNULL
        ) as process:
            ours, met = b"", set()
            while process.poll() is None:
                for pid in below(process.pid):
                    command = read(pid, "cmdline")
                    ours = command if pid == process.pid else ours
                    assert MARK.encode() not in command
                    if pid != process.pid and command not in (ours, b""):  # else not yet itself
                        met.add(command)
                        assert MARK.encode() not in read(pid, "environ")
                time.sleep(0.002)
            assert process.returncode == 0
        assert met, arguments


def below(pid: int) -> Iterator[int]:
    """A process, and all that it started."""
    yield pid
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield from below(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return


def read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@contextmanager
def masked(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o177])
def test_whatever_the_umask_files_are_ours_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    monkeypatch.delenv("MCP_BACKUP_PASSWORD")
    ours = set(project.iterdir())
    with masked(mask):
        for arguments in (
            ["init", "--yes"],
            ["create"],
            ["restore", "--dry-run"],
            ["restore", "--databases", "notes", "--yes"],
            ["key", "recovery-kit", "--out", "kit"],
            ["key", "add", "--generate", "new.key"],
        ):
            assert program(arguments) == 0, arguments
    wrong = {}
    for path in project.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path in ours or path.name in ("mcp-backup.toml", "image"):
            continue  # an undo point keeps the mode that the live file is to have again
        wanted = (0o700,) if path.is_dir() else (0o600, 0o400)
        if mode not in wanted:
            wrong[str(path.relative_to(project))] = f"{mode:04o}"
    assert wrong == {}
