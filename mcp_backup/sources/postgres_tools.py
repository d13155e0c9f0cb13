"""`pg_dump` and `pg_restore`: found in a version that fits, and run with nothing secret on the way.

A `pg_dump` reads servers of its own version and older, a `pg_restore` archives of its own version
and older. So the one of the server's version is taken where there is one, else the next newer.

They are looked for in the settings' `bin_dir`, else on the PATH and where packages put them.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.postgres_server import environment
from mcp_backup.sources.source import SourceSpec

Program = Literal["pg_dump", "pg_restore"]

_USUAL = (  # of Debian, Red Hat, Homebrew and Postgres.app; one directory a version
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")
_MOST_SAID = 3  # of a program's complaints
_PIECE = 1 << 20


class Tool(Struct, frozen=True):
    """A program, and the major version of PostgreSQL that it belongs to."""

    path: str
    major: int
    version: str


def fitting(spec: SourceSpec, program: Program, major: int, what: str) -> Tool:
    """Return the program of version `major`, else of the next newer that is here.

    `what` is what has that version, for the error: "the server is PostgreSQL 17".

    Raises:
        SourceUnreadable: there is none, or older ones only; says which to install.
    """
    tools = _found(spec, program)
    fit = [tool for tool in tools if tool.major >= major]
    if fit:
        return min(fit, key=lambda tool: tool.major)
    where = spec.options.get("bin_dir") or "on the PATH or where packages put it"
    there = (
        f"{program} {tools[-1].version} is too old, and there is no newer one"
        if tools
        else f"there is no {program}"
    )
    raise SourceUnreadable(
        f"source {spec.name!r}: {what}, and {there} ({where})",
        hint=f"Install postgresql-client-{major} (Debian: from apt.postgresql.org where your "
        f"release has none), or name its directory as `bin_dir` of the source.",
    )


def run(
    spec: SourceSpec,
    command: Sequence[str],
    directory: Path,
    take: Callable[[bytes], None] | None = None,
    *,
    forgiven: str = "",
) -> None:
    """Run a program to its end, and hand what it prints to `take`, piece by piece.

    `directory` holds its complaints and, for as long as it runs, a file with the password. That
    the server refuses the statement `forgiven`, and nothing else, is no failure.

    Raises:
        SourceUnreadable: it ended with another status than 0; says how it complained.
    """
    complaints = directory / "stderr"
    given = environment(spec, directory)
    try:
        with open(complaints, "w+b") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=given,
            )
            try:
                assert process.stdout is not None
                with process.stdout as output:
                    while piece := output.read(_PIECE):
                        if take is not None:
                            take(piece)
                status = process.wait()
            finally:
                process.kill()
                process.wait()
            if status:
                stderr.seek(0)
                said = stderr.read(_PIECE).decode(errors="replace")
                if not forgiven or not _is_all(said, forgiven):
                    raise _failed(spec, command[0], status, said)
    finally:
        complaints.unlink(missing_ok=True)
        (directory / "pgpass").unlink(missing_ok=True)


def _is_all(said: str, statement: str) -> bool:
    """Tell whether a pg_restore that went on complains of one thing, that statement."""
    lines = said.splitlines()
    errors = sum(": error: " in line for line in lines)
    return (
        errors == 1
        and f"Command was: {statement}" in lines
        and lines[-1].endswith("errors ignored on restore: 1")
    )


def _failed(spec: SourceSpec, program: str, status: int, said: str) -> SourceUnreadable:
    """Word a failure. Details and contexts stay out: they hold values of rows."""
    errors = [line.strip() for line in said.splitlines() if ": error: " in line]
    told = [line.split(": error: ", 1)[1] for line in errors[:_MOST_SAID]]
    why = "; ".join(told) or f"exit status {status}"
    hint = "Look at the server's log, then try again."
    if "permission denied" in said or "row-level security" in said:
        hint = (
            "Let the source's role read everything: GRANT pg_read_all_data TO it, BYPASSRLS "
            "where rows are guarded, SELECT on every large object; or exclude the tables."
        )
    elif "No space left on device" in said:
        hint = "Free some space, then try again."
    return SourceUnreadable(
        f"source {spec.name!r}: {os.path.basename(program)} failed: {why:.600}",
        hint=f"{hint} Nothing of it counts.",
    )


def _found(spec: SourceSpec, program: Program) -> list[Tool]:
    """Return the program in all versions that are here, oldest first."""
    tools: dict[int, Tool] = {}
    for path in _candidates(spec, program):
        tool = _tool(path)
        if tool is not None:
            tools.setdefault(tool.major, tool)
    return [tools[major] for major in sorted(tools)]


def _candidates(spec: SourceSpec, program: Program) -> Iterable[str]:
    named = spec.options.get("bin_dir")
    if named:
        yield os.path.join(named, program)
        return
    for pattern in _USUAL:
        root = Path(pattern.split("*", 1)[0]).parent
        if root.is_dir():
            yield from map(str, sorted(Path("/").glob(f"{pattern[1:]}/{program}")))
    on_path = shutil.which(program)
    if on_path:
        yield on_path


def _tool(path: str) -> Tool | None:
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # not there, or no program
        return None
    match = _VERSION.search(said)
    return Tool(path, int(match[1]), match[0].split(" ")[1]) if match else None
