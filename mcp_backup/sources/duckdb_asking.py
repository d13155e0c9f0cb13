"""Asking DuckDB: each question in a process of its own, which a bad file may take down with it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mcp_backup.errors import BackupError, SourceError, SourceUnreadable

_PROGRAM = "mcp_backup.sources.duckdb_library"
_SECONDS = 3600.0  # to read one file to its end; it is killed then
Operation = Literal["look", "peek", "fold", "empty", "value"]


class Fault(Exception):
    """DuckDB could not do it. `why` is one of `duckdb_library.FAULTS`, or "crashed"."""

    def __init__(self, words: str, why: str) -> None:
        """Carry what DuckDB said."""
        super().__init__(words)
        self.why = why


def ask(
    name: str, operation: Operation, path: Path, *arguments: str, seconds: float = _SECONDS
) -> dict[str, Any]:
    """Have DuckDB do one thing to the file `path` of source `name`.

    Raises:
        SourceUnreadable: DuckDB is not installed.
        Fault: it could not be done.
    """
    require(name)
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", _PROGRAM, operation, str(path), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "HOME": "/nonexistent"},  # where extensions might lie
        )
    except subprocess.TimeoutExpired as error:
        raise Fault(f"DuckDB did not end within {seconds:g} s", "crashed") from error
    try:
        answer: Mapping[str, Any] = json.loads(ran.stdout)
    except ValueError as error:
        said = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Fault(
            f"DuckDB ended with status {ran.returncode}: {' '.join(said) or 'no word'}", "crashed"
        ) from error
    if "fault" in answer:
        raise Fault(str(answer["fault"]), str(answer["why"]))
    return dict(answer)


def require(name: str) -> None:
    """Refuse to go on without DuckDB.

    Raises:
        SourceUnreadable: it is not installed; says how to.
    """
    if find_spec("duckdb") is None:
        raise SourceUnreadable(
            f"source {name!r}: the `duckdb` module is not installed",
            hint="Install it beside mcp-backup: `pip install 'mcp-backup[duckdb]'`. "
            "Nothing was read.",
        )


def unreadable(name: str, path: object, fault: Fault) -> BackupError:
    """Word that a file, of which nobody can have changed anything meanwhile, cannot be read."""
    if fault.why == "full":
        return SourceError(
            f"source {name!r}: no space is left for a temporary copy of {path}",
            hint="Free some space, or set `restore.scratch` to a larger disk. "
            "Nothing live was changed.",
        )
    return SourceUnreadable(
        f"source {name!r}: DuckDB cannot read {path}: {fault}",
        hint="If it opens in its own program, this is a limit of ours; else restore it from an "
        "earlier backup. What is there now was not backed up.",
    )
