import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_backup.errors import SettingsInvalid
from mcp_backup.password import password_file_risk, resolve_password
from mcp_backup.settings import load_settings, repository_password

WORDS = "correct horse"


def refusal(file: Path | None, command: str | None = None, **environ: str) -> str:
    with pytest.raises(SettingsInvalid) as refused:
        resolve_password(file, command, environ, None)
    return f"{refused.value} | {refused.value.hint}"


def password(file: Path | None, command: str | None = None, **environ: str) -> str:
    return resolve_password(file, command, environ, None).reveal()


@pytest.mark.parametrize(
    "content",
    [
        WORDS.encode(),
        f" \t{WORDS}\r\n\n".encode(),
        f"\u00a0\u2003{WORDS}\u3000\x85\v\f".encode(),
        b"\xef\xbb\xbf" + WORDS.encode() + b"\n",
        b"\xff\xfe" + WORDS.encode("utf-16-le") + b"\n\0",
        b"\xfe\xff" + WORDS.encode("utf-16-be"),
    ],
)
def test_a_password_file_is_trimmed_as_restic_trims_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert password(tmp_path / "key") == WORDS


def test_what_restic_does_not_trim_stays(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x1c a\nb \x1f\n")
    assert password(tmp_path / "key") == "\x1c a\nb \x1f"


@pytest.mark.skipif(
    shutil.which("restic") is None and "CI" not in os.environ, reason="no restic on this machine"
)
def test_restic_opens_with_the_password_we_read_from_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes("\ufeff \x1c pass wörd\u2003\x1f \r\n\n".encode())
    environ = {**os.environ, "RESTIC_REPOSITORY": str(tmp_path / "r")}
    run = ["restic", "--no-cache", "-q"]
    subprocess.run([*run, "init", "-p", str(tmp_path / "key")], env=environ, check=True)
    environ["RESTIC_PASSWORD"] = password(tmp_path / "key")
    subprocess.run([*run, "list", "keys"], env=environ, check=True)


def test_the_environment_comes_before_the_file_before_the_command(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from the file")
    for value, expected in ((" as it is ", " as it is "), ("", "from the file")):
        environ = {"MCP_BACKUP_PASSWORD": value}
        assert password(tmp_path / "key", "echo x", **environ) == expected
    assert password(None, "echo 'from the  command'", PATH="/bin:/usr/bin") == "from the  command"


def test_a_command_runs_without_a_shell_beside_the_settings_and_with_the_environment(
    tmp_path: Path,
) -> None:
    program = "import os; print(os.getcwd(), os.environ['MINE'], '$MINE')"
    (tmp_path / "say.py").write_text(program)
    (tmp_path / "mcp-backup.toml").write_text(
        f'[repository]\nlocation = "r"\npassword_command = "{sys.executable} say.py"\n'
    )
    settings = load_settings(tmp_path / "mcp-backup.toml", {}, Path("/"))
    found = repository_password(settings, {"MINE": "told"})
    assert found.reveal() == f"{tmp_path} told $MINE"


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    told = refusal(tmp_path / "none")
    assert f"the password file {tmp_path / 'none'} does not exist" in told
    assert "recovery kit" in told
    assert "cannot be read: Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n \t\r\n", b"\xef\xbb\xbf", b"\xff\xfe \0"])
def test_an_empty_password_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert f"the password file {tmp_path / 'key'} is empty" in refusal(tmp_path / "key")


@pytest.mark.parametrize("content", [b"secret\xff", b"\xff\xfes\0e"])
def test_bytes_that_are_no_text_are_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    told = refusal(tmp_path / "key")
    assert "bytes that are not UTF-" in told
    assert "secret" not in told


def test_without_any_password_the_three_ways_are_named() -> None:
    told = refusal(None)
    for way in ("password_file", "password_command", "MCP_BACKUP_PASSWORD"):
        assert way in told


@pytest.mark.parametrize(
    ("command", "ended"),
    [
        ("sh -c 'echo secret; exit 3'", "exit status 3"),
        ("sh -c 'kill -9 $$'", "exit status -9"),
        ("no-such-program-anywhere secret", "No such file or directory"),
        ("echo 'secret", "its quotes do not pair"),
        ("true", "the password command is empty"),
    ],
)
def test_a_command_that_fails_says_how_and_nothing_of_what_it_printed(
    command: str, ended: str
) -> None:
    told = refusal(None, command, PATH="/bin:/usr/bin")
    assert ended in told
    assert "secret" not in told


def test_a_command_does_not_read_from_our_input(tmp_path: Path) -> None:
    program = (
        "from mcp_backup.password import resolve_password as r;"
        "import os; print(r(None, 'cat', os.environ, None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="protocol", capture_output=True, text=True
    )
    assert "is empty" in done.stderr
    assert "protocol" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("mode", "who"),
    [
        (0o600, ""),
        (0o400, ""),
        (0o640, "its group"),
        (0o644, "everybody on this machine"),
        (0o604, "everybody on this machine"),
    ],
)
def test_a_password_file_that_others_may_read_is_a_risk(
    tmp_path: Path, mode: int, who: str
) -> None:
    (tmp_path / "key").write_text(WORDS)
    (tmp_path / "key").chmod(mode)
    expected = f"{tmp_path}/key (mode {mode:04o}) is open to {who}" if who else ""
    assert password_file_risk(tmp_path / "key") == expected
    assert password_file_risk(tmp_path / "none") == ""


def test_the_password_is_not_shown_by_accident(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(WORDS)
    found = resolve_password(tmp_path / "key", None, {}, None)
    assert WORDS not in f"{found} {found!r}"
