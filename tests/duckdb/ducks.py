"""DuckDB databases for tests: made, held and written to by other processes, captured, asked."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcp_backup.sources import duckdb as kind
from mcp_backup.sources.duckdb_copy import Patience, Reader
from mcp_backup.sources.source import Component, SourceSpec
from tests.duckdb import writer
from tests.sources.collecting import Collected, collect

FILL = (
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, body VARCHAR)",
    "INSERT INTO notes SELECT range, 'note number ' || range FROM range(2000)",
)


def source(path: Path, *exclude: str) -> SourceSpec:
    options = {"exclude_tables": list(exclude)}
    return SourceSpec("memories", Component.DATABASES, "duckdb", str(path), options)


def run(path: Path, *statements: str) -> Any:
    """Execute statements in another process; return the rows of the last one."""
    program = (
        "import duckdb, json, sys\n"
        "c = duckdb.connect(sys.argv[1])\n"
        "for s in sys.argv[2:]: rows = c.execute(s).fetchall()\n"
        "c.close()\n"
        "print(json.dumps(rows, default=str))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(path), *statements], capture_output=True, check=False
    )
    assert answer.returncode == 0, answer.stderr.decode()
    return json.loads(answer.stdout)


def make(path: Path, *statements: str) -> Path:
    """Make a database in another process, closed, with all in the file itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_made(statements or FILL))
    return path


@cache
def _made(statements: tuple[str, ...]) -> bytes:
    with TemporaryDirectory() as directory:
        run(Path(directory, "made.duckdb"), *statements)
        return Path(directory, "made.duckdb").read_bytes()


def left_open(path: Path, *statements: str) -> Path:
    """Execute statements in a process that then dies: what it committed stays in the log."""
    program = (
        "import duckdb, os, signal, sys\n"
        "c = duckdb.connect(sys.argv[1])\n"
        "for s in sys.argv[2:]: c.execute(s).fetchall()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path), *statements], check=False)
    assert path.with_name(path.name + ".wal").stat().st_size
    return path


@contextmanager
def holding(path: Path, *statements: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process open the database, execute statements, and sit on it."""
    program = (
        "import duckdb, sys\n"
        "c = duckdb.connect(sys.argv[1])\n"
        "for s in sys.argv[2:]: c.execute(s).fetchall()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Have another process write to the database for the duration of the block."""
    process = subprocess.Popen(
        [sys.executable, writer.__file__, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
            assert process.poll() is None
        finally:
            process.stdin.close()
            assert int(process.stdout.read() or 0) > 0


def taken(
    spec: SourceSpec,
    directory: Path,
    patience: Patience | None = None,
    reader: Reader | None = None,
) -> Collected:
    """Capture in this process; the scratch directory is seen to be empty afterwards."""
    scratch = directory / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    given = (lambda: patience) if patience else Patience
    try:
        return collect(lambda sink: kind.captured_with(spec, sink, scratch, given, reader), slots=3)
    finally:
        assert list(scratch.iterdir()) == []


def stage(collected: Collected, directory: Path) -> Path:
    """Write a capture's files into a directory, as the stager does."""
    for path, content in collected.content.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return directory


def family(path: Path) -> dict[str, bytes]:
    """Return the bytes of a database and its side files."""
    return {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}
