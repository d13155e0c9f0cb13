"""key at a terminal: passwords from a tty or a file, and none ever printed or among arguments."""

import os
import pty
import subprocess
from pathlib import Path

from mcp_backup.server.tools import backup_tools
from tests.test_cli import Run, command
from tests.test_cli import begun as begun
from tests.test_cli import project as project
from tests.test_cli import run as run

NEW = "a-new-password-of-ours"


def talked(project: Path, answers: list[tuple[str, str]], *arguments: str) -> tuple[int, str]:
    """Run at a terminal of its own, and answer each question once it is asked."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        cwd=project,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,  # else the password would be asked for at the tester's terminal
    )
    os.close(theirs)
    seen = ""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # how Linux ends a terminal
            break
        seen += read.decode()
        if answers and answers[0][0] in seen:
            os.write(ours, answers.pop(0)[1].encode() + b"\n")
    os.close(ours)
    return process.wait(timeout=30), seen


def test_a_password_is_asked_for_twice_and_not_shown(begun: Run, project: Path) -> None:
    questions = ("New password:", "The same again:")
    code, seen = talked(project, [(questions[0], NEW), (questions[1], "other")], "key", "add")
    assert (code, "the two differ" in seen) == (2, True)
    code, seen = talked(project, [(each, NEW) for each in questions], "key", "add")
    assert code == 0, seen
    assert "there are 2 now" in seen
    assert NEW not in seen
    (project / "backups.key").write_text(NEW)
    old, new = begun("key", "list", "--json").answer["keys"]
    assert (old["current"], new["current"]) == (False, True)
    question = f"Type '{old['key_id'][:8]}' to remove it"
    code, seen = talked(project, [(question, "no")], "key", "remove", old["key_id"][:8])
    assert code == 5
    code, seen = talked(project, [(question, old["key_id"][:8])], "key", "remove", old["key_id"])
    assert code == 0, seen
    assert len(begun("key", "--json").answer["keys"]) == 1


def test_a_key_is_made_from_a_file_or_into_one(begun: Run, project: Path) -> None:
    assert begun("key", "add", "--generate", "new.key").code == 0
    made = project / "new.key"
    assert (made.stat().st_mode & 0o777, len(made.read_text().strip())) == (0o600, 43)
    assert begun("key", "add", "--generate", "new.key").code == 2
    (project / "by-hand").write_text(NEW + "\n")
    added = begun("key", "add", "--new-password-file", "by-hand", "--json").answer
    assert added["keys"] == 3
    assert begun("key", "add", "--new-password-file", "missing").code == 2
    assert begun("key", "add").code == 2  # nobody is there to ask
    ran = begun("key", "remove", added["key_id"])
    assert (ran.code, "approval-required" in ran.err) == (5, True)
    assert begun("key", "remove", added["key_id"], "--yes").code == 0
    listed = begun("key", "list")
    assert listed.out.count("\n") == 3
    assert listed.out.splitlines()[1].startswith("*")


def test_a_kit_is_written_and_proven_and_doctor_is_content(begun: Run, project: Path) -> None:
    assert "recovery kit: none was made" in begun("doctor").out
    assert begun("key", "recovery-kit").code == 2
    assert begun("create", "--backup-type", "config", "--no-verify").code == 0
    made = begun("key", "recovery-kit", "--out", "kit.html")
    assert made.code == 0
    password = (project / "backups.key").read_text().strip()
    assert password in (project / "kit.html").read_text()
    assert password not in made.out + made.err
    proven = begun("key", "prove-kit", "--kit", "kit.html")
    assert proven.code == 0
    assert proven.out.startswith("the kit alone opens ")
    assert begun("key", "prove-kit", "--kit", "mcp-backup.toml").code == 2
    assert "recovery kit: made on " in begun("doctor").out


def test_no_tool_touches_keys() -> None:
    names = {tool.name for tool in backup_tools(nobody)}  # type: ignore[arg-type]
    assert not [name for name in names if "key" in name or "kit" in name]


async def nobody() -> None:
    """Stand for an engine that is never opened."""
