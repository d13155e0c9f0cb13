"""Fingerprints: equal only if nothing was committed, and silent when that cannot be known."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from mcp_backup.channel import Frame
from mcp_backup.sources import capture, glance, sqlite
from mcp_backup.sources.kinds import kind
from mcp_backup.sources.source import Component, SourceSpec
from tests.sources.databases import (
    HOT,
    Taking,
    ask_live,
    crashed,
    database,
    fill,
    holding,
    make,
)

_ALL = {"include": ["**"]}


@pytest.fixture(autouse=True)
def _settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be too young: this kernel's timestamps tell any two writes apart."""
    monkeypatch.setattr(glance, "SETTLED_NS", 0)


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_it_stands_still_while_nothing_is_committed(tmp_path: Path, mode: str) -> None:
    spec = database(make(tmp_path / "live.db", fill(100), mode))
    one = sqlite.fingerprint(spec)
    assert one.startswith("sqlite:")
    ask_live(Path(spec.path), "SELECT count(*) FROM t")
    evidence = Taking(tmp_path).take(spec)
    assert sqlite.fingerprint(spec) == one == evidence.fingerprint


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_each_commit_changes_it(tmp_path: Path, mode: str) -> None:
    live = make(tmp_path / "live.db", fill(100), mode)
    seen = {sqlite.fingerprint(database(live))}
    for row in range(20):
        statements = (
            f"PRAGMA journal_mode={mode}",
            f"UPDATE t SET text = 'same' WHERE id = {row + 1}",
        )
        with holding(live, *statements):
            seen.add(sqlite.fingerprint(database(live)))
    assert len(seen) >= 21
    assert "" not in seen


def test_it_is_silent_about_a_change_of_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "SETTLED_NS", 2_000_000_000)
    live = make(tmp_path / "live.db", fill(100))
    assert sqlite.fingerprint(database(live)) == ""


def test_it_is_silent_about_a_time_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = make(tmp_path / "live.db", fill(100))
    os.utime(live, ns=(0, time.time_ns() + 10**12))
    assert sqlite.fingerprint(database(live)) == ""


def test_it_is_silent_about_an_unfinished_transaction(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(2_000))
    crashed(live, *HOT)
    assert sqlite.fingerprint(database(live)) == ""


def test_it_is_silent_about_what_is_not_there(tmp_path: Path) -> None:
    assert sqlite.fingerprint(database(tmp_path / "none.db")) == ""


async def test_a_glance_from_outside_tells_what_a_capture_told(tmp_path: Path) -> None:
    """In a process of its own, which knows two seconds, and for a path that is no text, too."""
    strange = tmp_path / os.fsdecode(b"odd \xff\n name.db")
    make(tmp_path / "live.db", fill(1)).rename(strange)
    other = make(tmp_path / "other.db", fill(2), "wal")
    specs = [database(strange), database(tmp_path / "none.db"), database(other)]
    os.mkfifo(tmp_path / "pipe.db")  # which whoever opened it would wait at for ever
    specs.append(database(tmp_path / "pipe.db"))
    assert await capture.fingerprints(specs) == [""] * 4
    await anyio.sleep(2.5)
    marks = await capture.fingerprints(specs)
    assert marks == [sqlite.fingerprint(spec) for spec in specs]
    assert marks[2] == Taking(tmp_path).take(specs[2]).fingerprint
    assert len(set(marks)) == 3


async def test_sources_of_all_kinds_are_looked_at_together(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    make(tmp_path / "live.db", fill(1))
    files = SourceSpec("s", Component.CONFIG, "files", str(tmp_path / "settings"), _ALL)
    elsewhere = [
        SourceSpec("p", Component.DATABASES, "postgres", "server"),
        SourceSpec("w", Component.WORKFLOWS, "workflows", "http://localhost:9/mcp"),
    ]
    specs = [files, *elsewhere, database(tmp_path / "live.db")]
    await anyio.sleep(2.5)
    marks = await capture.fingerprints(specs)
    own = [kind(spec.kind).fingerprint(spec) for spec in specs]
    assert marks == own
    assert [mark.partition(":")[0] for mark in marks] == ["files", "", "", "sqlite"]


def test_a_glance_loads_no_library_and_nothing_of_ours(tmp_path: Path) -> None:
    program = (
        "import fcntl, os, stat, sys, time\n"
        "began, names = set(sys.modules), {'__name__': 'glance'}\n"
        f"exec(open({glance.__file__!r}).read(), names)\n"
        "names['told'](sys.argv[1])\n"
        "print(sorted(set(sys.modules) - began))\n"
    )
    live = make(tmp_path / "live.db", fill(1))
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, live],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told.strip() == "[]"


def test_a_glance_at_a_file_that_does_not_answer_ends_with_its_parent(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(1))
    os.mkfifo(journal := f"{live}-journal")
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            script = [sys.executable, "-I", "-S", glance.__file__]
            words = [str(theirs.fileno()), "", str(os.getpid())]
            child = subprocess.Popen([*script, *words], pass_fds=[theirs.fileno()])
        ours.sendall(Frame("glance", {}, os.fsencode(live) + b"\0").encode())
        while (writer := _writing(journal)) is None:  # until it reads there
            time.sleep(0.02)
    assert child.wait(10) == -signal.SIGIO
    os.close(writer)


def _writing(pipe: str) -> int | None:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
