"""The terminal, as people and scripts use it: words, two streams and an exit code."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.cli.app import VERBS
from mcp_backup.cli.app import run as program


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("notes", "tasks"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as database, database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE rows (text)")
            database.execute("INSERT INTO rows VALUES ('one')")
    (tmp_path / ".env").write_text("TOKEN=secret\n")
    return tmp_path


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program as its script does, without the start of another interpreter."""
    monkeypatch.chdir(project)

    def run(*arguments: str) -> Ran:
        code = program(arguments)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def begun(run: Run) -> Run:
    assert run("init", "--yes").code == 0
    return run


@pytest.fixture
def backed_up(begun: Run) -> Run:
    assert begun("create", "--no-verify").code == 0
    return begun


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mcp_backup", *arguments]


def texts(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [text for (text,) in database.execute("SELECT text FROM rows")]


def wreck(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM rows")


def typed(project: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Run at a terminal, where a person answers the question once it is asked."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), cwd=project, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    answered = False
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # how Linux ends a terminal
            break
        if not read:
            break
        seen += read
        if (not answered and b" to stop:" in seen) or (b" to go on:" in seen and not answered):
            os.write(ours, answer.encode())
            answered = True
    os.close(ours)
    return process.wait(timeout=30), seen.decode()


def test_every_verb_explains_itself(run: Run) -> None:
    for verb in VERBS:
        ran = run(verb, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert f"mcp-backup {verb}" in ran.out


@pytest.mark.parametrize("verb", ["list", "create", "verify", "--help", "--version"])
def test_starting_quickly_means_not_importing_what_serves(verb: str, project: Path) -> None:
    script = (
        "import sys; from mcp_backup.cli.app import run; run([sys.argv[1]]); "
        "sys.exit(any(name.split('.')[0] in ('mcp', 'starlette') for name in sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, verb], cwd=project, capture_output=True, check=False
    )
    assert ran.returncode == 0


def test_what_cannot_be_meant_is_a_usage_error_with_the_next_step(run: Run) -> None:
    for arguments, told in (
        (["creat"], "Did you mean 'create'?"),
        (["create", "--bakup-type", "full"], "--bakup-type"),
        (["create", "--backup-type", "everything"], "everything"),
        (["list", "--since", "yesterday"], "is not a day or a time"),
        (["restore", "--components", "everything"], "none of databases, config"),
    ):
        ran = run(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("error [usage]: ")
        assert told in ran.err
        assert "\n  next: " in ran.err


def test_without_settings_every_verb_says_how_to_begin(run: Run) -> None:
    for verb in ("create", "list", "verify", "restore", "undo", "check", "serve", "call"):
        ran = run(verb)
        assert (ran.code, ran.out) == (2, ""), verb
        assert ran.err.startswith("error [settings-invalid]: no settings")
        assert "Run `mcp-backup init`" in ran.err


def test_init_asks_nothing_and_protects_what_is_near(run: Run, project: Path) -> None:
    ran = run("init", "--yes", "--json")
    assert ran.code == 0
    assert ran.answer["databases"] == ["notes", "tasks"]
    assert ran.answer["repository_created"]
    key = project / "backups.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_text().strip()) >= 43
    assert "TOKEN" not in (project / "mcp-backup.toml").read_text()


def test_init_never_overwrites_settings(begun: Run, project: Path) -> None:
    before = (project / "mcp-backup.toml").read_bytes()
    ran = begun("init", "--yes")
    assert ran.code == 2
    assert "exists already" in ran.err
    assert (project / "mcp-backup.toml").read_bytes() == before


def test_init_makes_the_repository_of_settings_written_by_hand(run: Run, project: Path) -> None:
    settings = project / "mcp-backup.toml"
    settings.write_text(
        '[repository]\nlocation = "./kept"\npassword_file = "./kept.key"\n'
        '[[databases]]\nname = "rows"\npath = "data/rows.db"\n'
    )
    before = settings.read_bytes()
    asked = run("create")
    assert asked.code == 2
    assert "mcp-backup init" in asked.err
    made = run("init", "--yes", "--json")
    assert (made.code, made.answer["repository_created"]) == (0, True)
    assert made.answer["databases"] == ["rows"]
    assert settings.read_bytes() == before
    assert (project / "kept.key").stat().st_mode & 0o777 == 0o600
    assert run("init").code == 2


def test_an_init_that_fails_leaves_no_settings_behind(run: Run, project: Path) -> None:
    (project / "backups").write_text("a file where the repository is to be")
    assert run("init", "--yes").code != 0
    assert not (project / "mcp-backup.toml").exists()


def test_a_backup_can_be_made_listed_verified_and_checked(begun: Run) -> None:
    made = begun("create", "--backup_type", "full", "--note", "hello", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.answer["status"] == "completed"
    assert made.answer["verification"] == "passed"
    listed = begun("list", "--json").answer
    assert [each["backup_id"] for each in listed["backups"]] == [made.answer["backup_id"]]
    assert begun("verify", made.answer["backup_id"], "--level", "restore").code == 0
    assert begun("check", "--level", "data").code == 0
    assert begun("doctor").code == 0


def test_nothing_but_the_result_is_on_stdout(backed_up: Run) -> None:
    ran = backed_up("list")
    assert ran.out.startswith("BACKUP ")
    assert ran.out.count("\n") == 2
    assert ran.err == ""


def test_who_stops_reading_is_told_nothing_more(backed_up: Run, project: Path) -> None:
    for verb in ("list", "--version"):
        readable, writable = os.pipe()
        os.close(readable)
        ran = subprocess.run(
            command(verb), cwd=project, stdout=writable, stderr=subprocess.PIPE, check=False
        )
        os.close(writable)
        assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_switch_may_be_followed_by_a_word(begun: Run) -> None:
    assert begun("create", "--verify", "false", "--json").answer["verification"] == "skipped"


def test_a_source_that_fails_makes_the_backup_partial_and_the_exit_code_3(
    begun: Run, project: Path
) -> None:
    (project / "tasks.db").unlink()
    ran = begun("create", "--json")
    assert ran.code == 3
    assert ran.answer["status"] == "partial"
    plain = begun("create")
    assert plain.code == 3
    assert "tasks: [source-missing]" in plain.out


def test_damage_in_the_repository_is_found_with_exit_code_3(backed_up: Run, project: Path) -> None:
    pack = max((project / "backups/data").rglob("*"), key=lambda path: path.stat().st_size)
    pack = (
        pack
        if pack.is_file()
        else next(path for path in (project / "backups/data").rglob("*") if path.is_file())
    )
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[20] ^= 1
    pack.write_bytes(data)
    assert backed_up("check", "--level", "data").code == 3


def test_a_repository_that_is_gone_is_exit_code_4_and_an_error_in_json(
    begun: Run, project: Path
) -> None:
    (project / "backups").rename(project / "elsewhere")
    ran = begun("list", "--json")
    assert (ran.code, ran.out) == (4, "")
    error = json.loads(ran.err)["error"]
    assert str(project / "backups") in error["message"]
    assert error["hint"]
    assert begun("doctor").code == 3


def test_a_restore_without_a_person_prints_the_plan_and_touches_nothing(
    backed_up: Run, project: Path
) -> None:
    wreck(project / "notes.db")
    ran = backed_up("restore", "--databases", "notes")
    assert ran.code == 5
    assert str(project / "notes.db") in ran.out
    assert "mcp-backup approve " in ran.err
    assert texts(project / "notes.db") == []


def test_a_plan_approved_elsewhere_is_carried_out_and_undone(backed_up: Run, project: Path) -> None:
    wreck(project / "notes.db")
    plan = backed_up("restore", "--databases", "notes", "--dry-run", "--json").answer["plan_id"]
    assert backed_up("approve", plan, "--yes").code == 0
    done = backed_up("restore", "--plan-id", plan, "--json")
    assert done.code == 0
    assert texts(project / "notes.db") == ["one"]
    assert done.answer["undo_id"] in backed_up("undo").out
    assert backed_up("undo", done.answer["undo_id"]).code == 5
    assert texts(project / "notes.db") == ["one"]
    assert backed_up("undo", done.answer["undo_id"], "--yes").code == 0
    assert texts(project / "notes.db") == []


def test_a_person_who_types_the_sources_name_has_it_restored(backed_up: Run, project: Path) -> None:
    wreck(project / "notes.db")
    code, seen = typed(project, "no\n", "restore", "--databases", "notes")
    assert code == 5
    assert "restore-declined" in seen
    assert texts(project / "notes.db") == []
    code, seen = typed(project, "notes\n", "restore", "--databases", "notes")
    assert code == 0, seen
    assert texts(project / "notes.db") == ["one"]


def test_a_restore_to_scratch_needs_nobody(backed_up: Run, project: Path) -> None:
    done = backed_up("restore", "--target", "scratch", "--databases", "notes", "--json")
    assert done.code == 0
    (target,) = done.answer["targets"]
    path = Path(target["path"])
    assert texts(path / "notes.db" if path.is_dir() else path) == ["one"]


def test_an_export_is_written_where_it_was_asked_for(backed_up: Run, project: Path) -> None:
    assert backed_up("export", "--out", "all.tar.zst").code == 0
    assert (project / "all.tar.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    ran = backed_up("export", "--out", "n.sql", "--format", "sql", "--source", "notes")
    assert ran.code == 0
    assert "'one'" in (project / "n.sql").read_text()


def test_a_tool_is_called_as_an_agent_would(begun: Run) -> None:
    ran = begun("call", "create_backup", "--backup_type", "config", "--verify", "true", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.answer["backup_type"] == "config"
    assert ran.answer["backup_id"] in begun("call", "list-backups", "--limit", "1").out
    refused = begun("call", "verify_backup", "--backup_id", "backup_20200101_000000")
    assert refused.code == 2
    assert refused.err.startswith("error [unknown-backup]: ")
    assert begun("call", "delete_backup").code == 2
    assert begun("call", "list_backups", "--limits", "1").code == 2
    assert "--backup_type" in begun("call").out


def test_a_server_that_is_not_there_is_unreachable(run: Run) -> None:
    ran = run("call", "list_backups", "--url", "http://127.0.0.1:9/mcp")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("error [server-unreachable]: ")


def heeding_ctrl_c() -> None:
    """Undo what a shell does to a job in the background: it ignores Ctrl-C, and so would ours."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_what_is_still_true_and_leaves_no_backup(begun: Run, project: Path) -> None:
    with closing(sqlite3.connect(project / "notes.db")) as database, database:
        texts = ((os.urandom(500).hex(),) for _ in range(20_000))
        database.executemany("INSERT INTO rows VALUES (?)", texts)
    process = subprocess.Popen(
        command("create"),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    locks = project / "backups/locks"  # the first that a backup writes
    patience = time.monotonic() + 30
    while not any(locks.iterdir()) and process.poll() is None:
        assert time.monotonic() < patience
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "error [interrupted]" in err
    assert "No backup was added" in err
    assert begun("list", "--json").answer["total"] == 0
    assert begun("check", "--level", "data").code == 0


def test_status_says_one_word_first_and_fails_when_it_is_failing(
    backed_up: Run, project: Path
) -> None:
    ran = backed_up("status")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "healthy")
    assert {source["source"] for source in backed_up("status", "--json").answer["sources"]} >= {
        "notes",
        "tasks",
    }
    (project / "notes.db").unlink()
    (project / "tasks.db").unlink()
    assert backed_up("create", "--backup-type", "database").code != 0
    failing = backed_up("status")
    assert (failing.code, failing.out.splitlines()[0]) == (3, "failing")


def test_history_says_who_did_what_newest_first(backed_up: Run) -> None:
    assert backed_up("restore", "--databases", "notes", "--yes").code == 0
    runs = backed_up("history", "--json").answer["runs"]
    assert [run["verb"] for run in runs] == ["restore", "approve", "create"]
    assert {run["asker"]["door"] for run in runs} == {"terminal"}
    assert [run["asker"]["tool"] for run in runs] == ["restore", "restore", "create"]
    assert [source["name"] for source in runs[0]["sources"]] == ["notes"]
    lines = backed_up("history", "--verb", "restore").out.splitlines()
    assert len(lines) == 2
    assert "completed" in lines[1]
    assert "terminal (" in lines[1]
