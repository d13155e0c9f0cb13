"""Fingerprints: equal only if nothing was committed, and silent when that cannot be known."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from mcp_backup.sources import sqlite, sqlite_file
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


@pytest.fixture(autouse=True)
def _settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be too young: this kernel's timestamps tell any two writes apart."""
    monkeypatch.setattr(sqlite_file, "_SETTLED_NS", 0)


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
    monkeypatch.setattr(sqlite_file, "_SETTLED_NS", 2_000_000_000)
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


def test_looking_for_changes_loads_no_database_library(tmp_path: Path) -> None:
    spec = database(make(tmp_path / "live.db", fill(1)))
    program = (
        "import json, sys\n"
        "from mcp_backup.sources import kinds, wire\n"
        "print(kinds.fingerprint(wire.spec_of(json.loads(sys.argv[1]))))\n"
        "print([name for name in ('apsw', 'sqlite3', 'duckdb') if name in sys.modules])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, json.dumps(asdict(spec))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert told[0] in ("", sqlite.fingerprint(spec))  # "" while the file is two seconds young
    assert told[1] == "[]"
