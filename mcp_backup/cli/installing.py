"""service, install-shim: the program's place on this machine."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mcp_backup.cli.session import Session, session
from mcp_backup.errors import SettingsInvalid
from mcp_backup.service import Service, Unit, install, launchd_unit, status, systemd_unit, uninstall
from mcp_backup.shim import install_shim as write_shim

_PROGRAM = (sys.executable, "-P", "-m", "mcp_backup")


def service(
    context: typer.Context,
    action: Annotated[
        Literal["install", "status", "uninstall"],
        typer.Argument(help="install and start it, look, or stop and remove it."),
    ] = "status",
    *,
    system: Annotated[
        bool, typer.Option("--system", help="For the machine, not for this user.")
    ] = False,
    run_as: Annotated[
        str, typer.Option(help="The user that a --system service runs as.", metavar="USER")
    ] = "",
) -> int:
    """Run the schedule, and the server for agents, as a service of this machine."""
    this = session(context)
    unit = _unit(this, action, system=system, run_as=run_as)
    done = {"install": install, "status": status, "uninstall": uninstall}[action](unit)
    this.terminal.result(done, _told(done))
    return 0


def install_shim(
    context: typer.Context,
    *,
    dir: Annotated[
        Path, typer.Option(help="A directory that is on the PATH.", metavar="DIRECTORY")
    ] = Path("~/.local/bin"),
) -> int:
    """Make `mahavishnu mcp call TOOL` mean `mcp-backup call TOOL`."""
    this = session(context)
    around = this.surroundings
    shim = write_shim(around.cwd / dir.expanduser(), _PROGRAM, around.environ.get("PATH", ""))
    lines = [f"shim        {shim.path}"]
    if not shim.found:
        lines.append(f"next: put {Path(shim.path).parent} at the front of your PATH")
    this.terminal.result(shim, lines)
    return 0


def _unit(this: Session, action: str, *, system: bool, run_as: str) -> Unit:
    """Return the unit that this platform wants.

    Raises:
        SettingsInvalid: there is no settings file that a service could read.
    """
    command = list(_PROGRAM)
    if action == "install":
        file = this.settings().file
        if file is None:
            raise SettingsInvalid(
                "the settings are in the environment, which a service does not have",
                hint="Write them to a file with `mcp-backup init`. Nothing was changed.",
            )
        command += ["--config", str(file), "serve", "--http"]
    unit_of = launchd_unit if sys.platform == "darwin" else systemd_unit
    return unit_of(command, this.surroundings.home, system=system, run_as=run_as)


def _told(done: Service) -> list[str]:
    state = "running" if done.running else "not running"
    lines = [
        f"service     {done.path} ({'installed' if done.installed else 'not installed'})",
        f"state       {state}",
    ]
    return lines + [f"next: {shlex.join(shlex.split(command))}" for command in done.by_hand]
