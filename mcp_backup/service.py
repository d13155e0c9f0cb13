"""The daemon as a service of the machine: systemd units and launchd agents.

What runs is `mcp-backup serve --http`: the schedule, and the tools for agents beside it.
"""

import plistlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from mcp_backup.durable import remove_durably, write_durably
from mcp_backup.errors import StoreDenied, UsageError

_LABEL = "mcp-backup"
_PATIENCE_SECONDS = 60
_SYSTEMD = """\
[Unit]
Description=mcp-backup: scheduled backups, and MCP over HTTP

[Service]
Type=exec
{user}ExecStart={command}
Restart=on-failure
RestartSec=30
KillMode=mixed
TimeoutStopSec=60
Nice=10
NoNewPrivileges=true

[Install]
WantedBy={target}
"""

Command = tuple[str, ...]


class Unit(Struct, frozen=True):
    """What makes a service: a file, and the commands that start it, stop it and ask for it."""

    path: Path
    text: bytes
    starting: tuple[Command, ...]
    stopping: tuple[Command, ...]
    asking: Command


class Service(Struct, frozen=True):
    """The service as it is now. `by_hand` are commands that could not be carried out."""

    path: str
    installed: bool
    running: bool
    by_hand: tuple[str, ...] = ()


def systemd_unit(command: Sequence[str], home: Path, *, system: bool, run_as: str = "") -> Unit:
    """Return the unit of one user's systemd, or the whole machine's, which may `run_as` a user."""
    if run_as and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", run_as):
        raise UsageError(f"{run_as!r} is no user's name", hint="Correct it. Nothing was changed.")
    directory = Path("/etc/systemd/system") if system else home / ".config/systemd/user"
    control = ("systemctl",) if system else ("systemctl", "--user")
    text = _SYSTEMD.format(
        user=f"User={run_as}\n" if run_as else "",
        command=" ".join(map(_quoted, command)),
        target="multi-user.target" if system else "default.target",
    )
    return Unit(
        path=directory / f"{_LABEL}.service",
        text=text.encode(errors="surrogateescape"),
        starting=((*control, "daemon-reload"), (*control, "enable", "--now", _LABEL)),
        stopping=((*control, "disable", "--now", _LABEL),),
        asking=(*control, "is-active", "--quiet", _LABEL),
    )


def launchd_unit(command: Sequence[str], home: Path, *, system: bool, run_as: str = "") -> Unit:
    """Return the agent of one user's launchd, or the whole machine's daemon."""
    directory = Path("/Library/LaunchDaemons") if system else home / "Library/LaunchAgents"
    path = directory / f"{_LABEL}.plist"
    facts = {
        "Label": _LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Background",
        "StandardErrorPath": str(home / "Library/Logs/mcp-backup.log"),
    }
    return Unit(
        path=path,
        text=plistlib.dumps(facts | ({"UserName": run_as} if run_as else {})),
        starting=(("launchctl", "load", "-w", str(path)),),
        stopping=(("launchctl", "unload", "-w", str(path)),),
        asking=("launchctl", "list", _LABEL),
    )


def install(unit: Unit) -> Service:
    """Write the unit and start the service; what cannot be started is told in `by_hand`.

    Raises:
        StoreDenied: the file cannot be written.
    """
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(unit.path, unit.text, 0o644)
    except OSError as error:
        raise _denied(unit, error) from error
    by_hand = _carried_out(unit.starting)
    return Service(str(unit.path), True, _succeeds(unit.asking), by_hand)


def status(unit: Unit) -> Service:
    """Tell whether the service is installed, and whether it runs."""
    return Service(str(unit.path), unit.path.exists(), _succeeds(unit.asking))


def uninstall(unit: Unit) -> Service:
    """Stop the service and remove its unit; backups, keys and settings stay as they are.

    Raises:
        StoreDenied: the file cannot be removed.
    """
    if not unit.path.exists():
        return status(unit)
    by_hand = _carried_out(unit.stopping)
    try:
        remove_durably(unit.path)
    except OSError as error:
        raise _denied(unit, error) from error
    return Service(str(unit.path), False, _succeeds(unit.asking), by_hand)


def _carried_out(commands: Sequence[Command]) -> tuple[str, ...]:
    """Run commands in order; return those from the first that fails on."""
    for number, command in enumerate(commands):
        if not _succeeds(command):
            return tuple(" ".join(each) for each in commands[number:])
    return ()


def _succeeds(command: Command) -> bool:
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _denied(unit: Unit, error: OSError) -> StoreDenied:
    return StoreDenied(
        f"{unit.path}: {error.strerror}",
        hint="Run it as a user who may, or without --system. Nothing was changed.",
    )


def _quoted(word: str) -> str:
    """Quote one argument of a systemd command line."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
