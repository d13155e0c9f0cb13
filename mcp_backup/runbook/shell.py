"""A shell for a page: each command finds the directory and variables that the last one left."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from msgspec import Struct

_WRAPPED = """
cd -- "$(cat "$_RUNBOOK/directory")" && . "$_RUNBOOK/variables"
{ %s
}
_code=$?
declare -px > "$_RUNBOOK/variables.new" && mv "$_RUNBOOK/variables.new" "$_RUNBOOK/variables"
pwd > "$_RUNBOOK/directory"
exit $_code
"""


class Ran(Struct, frozen=True):
    """A command, done: its output and errors in order, how it ended, and how long it took."""

    output: str
    exit_code: int
    seconds: float


class Shell:
    """Runs commands one after the other with bash."""

    def __init__(self, state: Path, environ: Mapping[str, str]) -> None:
        """Keep directory and variables in `state`."""
        self._state = state
        self._environ = {**environ, "_RUNBOOK": str(state)}

    def run(self, command: str) -> Ran:
        """Run a command to its end. What it leaves running in the background goes on.

        Output goes through a file: such a child would keep a pipe open.
        """
        began = monotonic()
        with tempfile.TemporaryFile() as output:
            code = subprocess.run(
                ["bash", "-c", _WRAPPED % command],  # noqa: S607 - whichever the person has
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environ,
                check=False,
            ).returncode
            output.seek(0)
            text = output.read().decode(errors="replace")
        return Ran(text, code, round(monotonic() - began, 3))


@contextmanager
def shell(directory: Path, environ: Mapping[str, str]) -> Iterator[Shell]:
    """Provide a shell that begins in `directory`; what it remembers is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mcp-backup-runbook-") as state:
        os.chmod(state, 0o700)
        (Path(state) / "directory").write_text(f"{directory}\n")
        (Path(state) / "variables").write_text("")
        yield Shell(Path(state), environ)
