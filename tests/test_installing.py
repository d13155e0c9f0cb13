"""The program's place on a machine: as a service, and behind `mahavishnu mcp call`."""

import os
import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from mcp_backup.errors import StoreDenied, UsageError
from mcp_backup.service import install, launchd_unit, status, systemd_unit, uninstall
from mcp_backup.shim import install_shim

ODD = ("/opt/a b/python", "-m", "mcp_backup", "--config", '/srv/50%/$HOME/"x"\\y.toml', "serve")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def ran(path: str, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["mahavishnu", *words], env={"PATH": path}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    """A program that says how it was called."""
    return (str(script(tmp_path / "a b" / "ours", 'printf "<%s>" "$@"')),)


def test_the_shim_calls_our_tool_and_leaves_the_rest_to_the_real_one(
    tmp_path: Path, program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "real" / "mahavishnu", 'printf "real<%s>" "$@"; exit 7')
    path = f"{tmp_path}/shims:{tmp_path}/more:{tmp_path}/real:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    assert install_shim(tmp_path / "shims", program, path).found
    install_shim(tmp_path / "more", program, path)  # another one: they do not call each other
    words = ("--backup_type", "full", "--note", "a b $HOME")
    assert ran(path, "mcp", "call", "create_backup", *words) == (
        0,
        "<call><create_backup><--backup_type><full><--note><a b $HOME>",
        "",
    )
    assert ran(path, "mcp", "status", "x y") == (7, "real<mcp>real<status>real<x y>", "")
    assert ran(path) == (7, "real<>", "")


def test_the_shim_says_so_when_there_is_no_real_one(
    tmp_path: Path, program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/shims:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    install_shim(tmp_path / "shims", program, path)
    code, out, err = ran(path, "mcp", "start")
    assert (code, out) == (127, "")
    assert "mahavishnu is not installed" in err


def test_a_real_mahavishnu_is_never_overwritten(tmp_path: Path, program: tuple[str, ...]) -> None:
    real = script(tmp_path / "bin" / "mahavishnu", "exit 0")
    before = real.read_bytes()
    with pytest.raises(UsageError, match="is there already, and no shim"):
        install_shim(real.parent, program, "")
    assert real.read_bytes() == before
    assert not install_shim(tmp_path / "else", program, str(real.parent)).found
    assert not install_shim(tmp_path / "else", program, str(real.parent)).found  # twice is fine


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("run_as", ["", "root"])
def test_systemd_accepts_the_units(tmp_path: Path, run_as: str) -> None:
    python = script(tmp_path / "a b 50%" / "python", "exit 0")
    unit = systemd_unit((str(python), *ODD[1:]), tmp_path, system=bool(run_as), run_as=run_as)
    file = tmp_path / unit.path.name
    file.write_bytes(unit.text)
    scope = "--system" if run_as else "--user"
    done = subprocess.run(
        ["systemd-analyze", scope, "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "mcp-backup" in line]
    assert (done.returncode, ours) == (0, [])


def test_units_say_what_to_run_for_whom() -> None:
    home = Path("/home/somebody")
    user = systemd_unit(ODD, home, system=False)
    assert user.path == home / ".config/systemd/user/mcp-backup.service"
    assert b'"/srv/50%%/$$HOME/\\"x\\"\\\\y.toml" "serve"\n' in user.text
    assert b"WantedBy=default.target" in user.text
    machine = systemd_unit(ODD, home, system=True, run_as="backup")
    assert machine.path == Path("/etc/systemd/system/mcp-backup.service")
    assert b"\nUser=backup\n" in machine.text
    agent = launchd_unit(ODD, home, system=False)
    assert agent.path == home / "Library/LaunchAgents/mcp-backup.plist"
    assert plistlib.loads(agent.text)["ProgramArguments"] == list(ODD)
    with pytest.raises(UsageError, match="is no user's name"):
        systemd_unit(ODD, home, system=True, run_as="root\nExecStart=x")


def test_a_service_is_installed_looked_at_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    script(tmp_path / "bin" / "systemctl", f'echo "$@" >> {calls}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    unit = systemd_unit(ODD, tmp_path, system=False)
    done = install(unit)
    assert (done.installed, done.running, done.by_hand) == (True, True, ())
    assert unit.path.read_bytes() == unit.text
    assert status(unit).installed
    assert not uninstall(unit).installed
    assert not unit.path.exists()
    assert calls.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable --now mcp-backup",
        "--user is-active --quiet mcp-backup",
        "--user is-active --quiet mcp-backup",
        "--user disable --now mcp-backup",
        "--user is-active --quiet mcp-backup",
    ]


def test_where_systemd_does_not_answer_the_commands_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin" / "systemctl", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    done = install(systemd_unit(ODD, tmp_path, system=False))
    assert (done.installed, done.running) == (True, False)
    assert done.by_hand[0] == "systemctl --user daemon-reload"
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDenied):
        install(systemd_unit(ODD, tmp_path / "file", system=False))
