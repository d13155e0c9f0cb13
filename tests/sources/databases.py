"""Databases for tests: made, written to by other processes, captured, and looked into."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from mcp_backup.arena import Arena
from mcp_backup.channel import Channel
from mcp_backup.sources import sqlite
from mcp_backup.sources.capture import FileEnd, Filled, captured
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Component, Entry, Evidence, SourceSpec
from tests.sources import writer

SLOTS = 3


def database(path: Path, **options: Any) -> SourceSpec:
    return SourceSpec("notes", Component.DATABASES, "sqlite", str(path), options)


def make(path: Path, script: str, mode: str = "delete", page_size: int = 4096) -> Path:
    """Make a database, closed, with everything in the file itself."""
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.pragma("journal_mode", mode)
    for statement in script.split(";\n"):
        for _ in connection.execute(statement):
            pass
    connection.close()
    return path


def fill(rows: int, size: int = 200) -> str:
    """Return a script for a table `t` of that many rows, all different."""
    return (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);\n"
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        f" INSERT INTO t SELECT i, hex(randomblob({size // 2})) FROM n"
    )


def ask(path: Path, sql: str) -> Any:
    """Return the first value of a query, from a file that stays as it is."""
    connection = apsw.Connection(
        f"{path.as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    try:
        return connection.execute(sql).get
    finally:
        connection.close()


def ask_live(path: Path, sql: str) -> Any:
    """Return the first value of a query, asked by another process as any program would."""
    program = (
        "import sqlite3, sys, json\n"
        "c = sqlite3.connect(sys.argv[1], timeout=20)\n"
        "print(json.dumps([list(r) for r in c.execute(sys.argv[2])]))\n"
        "c.commit()\n"
        "c.close()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(path), sql], capture_output=True, check=False
    )
    assert answer.returncode == 0, answer.stderr.decode()
    rows = json.loads(answer.stdout)
    return rows[0][0] if rows else None


@dataclass
class Writing:
    """A writer process, and what it lived through once it has ended."""

    process: subprocess.Popen[bytes]
    lived: dict[str, Any] = field(default_factory=dict)


@contextmanager
def written(path: Path, mode: str, pause: float = 0.0) -> Iterator[Writing]:
    """Have another process write to the database at `path` for the duration of the block."""
    process = subprocess.Popen(
        [sys.executable, writer.__file__, str(path), mode, str(pause)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    writing = Writing(process)
    with process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield writing
        finally:
            process.stdin.close()
            writing.lived = json.loads(process.stdout.read() or b"{}")


@contextmanager
def holding(path: Path, *statements: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process execute statements on the database and then sit on it."""
    program = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for s in sys.argv[2:]: c.execute(s).fetchone()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "print(c.execute('SELECT count(*) FROM t').fetchone()[0], flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


@dataclass
class Taken:
    """A capture: its one entry, its image in a file, and its evidence."""

    entry: Entry
    image: Path
    end: FileEnd
    evidence: Evidence


async def taken(spec: SourceSpec, directory: Path) -> Taken:
    """Capture through a real worker process."""
    scratch, image = directory / "scratch", directory / "image.db"
    scratch.mkdir(parents=True, exist_ok=True)
    arena = Arena.create(SLOTS)
    entries: list[Entry] = []
    try:
        with image.open("wb") as file:
            async with captured(spec, arena, scratch) as capture:
                for slot in range(SLOTS):
                    await capture.give(slot)
                while not isinstance(event := await capture.next(), Evidence):
                    if isinstance(event, Filled):
                        file.seek(event.offset)
                        file.write(arena.content(event.slot)[: event.length])
                        await capture.give(event.slot)
                    elif isinstance(event, FileEnd):
                        end = event
                    else:
                        entries.append(event)
    finally:
        arena.close()
    assert list(scratch.iterdir()) == []
    return Taken(entries[0], image, end, event)


class Taking:
    """Captures in this process, one after the other, for when there must be many."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "image.db"
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self.arena = Arena.create(SLOTS)

    def take(self, spec: SourceSpec) -> Evidence:
        """Capture into `image`."""
        ours, theirs = socket.socketpair()
        child, parent = Channel(theirs), Channel(ours)
        receiving = threading.Thread(target=self._receive, args=(parent,))
        receiving.start()
        try:
            return sqlite.capture(spec, Sink(child, self.arena), self.scratch)
        finally:
            child.send("over")
            receiving.join()
            for channel, end in ((child, theirs), (parent, ours)):
                channel._file.close()
                end.close()

    def _receive(self, channel: Channel) -> None:
        for slot in range(SLOTS):
            channel.send("give", slot=slot)
        with self.image.open("wb") as file:
            while (frame := channel.receive()) is not None and frame.kind != "over":
                if frame.kind == "filled":
                    fields = frame.fields
                    file.seek(fields["offset"])
                    file.write(self.arena.content(fields["slot"])[: fields["length"]])
                    channel.send("give", slot=fields["slot"])


def family(path: Path) -> dict[str, bytes]:
    """Return the bytes of a database and its side files, without the WAL's index."""
    found = {}
    for suffix in ("", "-wal", "-journal"):
        side = Path(f"{path}{suffix}")
        if side.exists() and (side.stat().st_size or not suffix):
            found[suffix] = side.read_bytes()
    return found


def crashed(path: Path, *statements: str) -> None:
    """Execute statements in another process that then dies without closing anything."""
    program = (
        "import sqlite3, sys, os, signal\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for s in sys.argv[2:]: c.execute(s).fetchall()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path), *statements], check=False)


HOT: Sequence[str] = (  # what leaves a journal with pages of a transaction that never ended
    "PRAGMA journal_mode=delete",
    "PRAGMA cache_size=5",
    "BEGIN IMMEDIATE",
    "UPDATE t SET text = 'torn' || text",
)


def mode_of(path: Path) -> int:
    return path.read_bytes()[18]


def is_root() -> bool:
    return os.geteuid() == 0
