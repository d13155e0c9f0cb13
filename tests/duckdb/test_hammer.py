"""Captures under a hard writer: none that is accepted breaks what the writer promises.

`pytest tests/duckdb/test_hammer.py --duckdb-captures 300` makes as many; CI makes fewer. Every
third copy is throttled: naive copies break when they are slow. Each accepted copy is restored
from its bytes and opened to be written to, as its program would.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_backup.errors import SourceUnstable
from mcp_backup.sources.duckdb_copy import Patience, Reader
from tests.duckdb import writer
from tests.duckdb.ducks import source, stage, taken, written

_BATCH = 10  # copies opened in one process
OPEN = """
import duckdb, json, sys
for path in sys.argv[2:]:
    c = duckdb.connect(path)
    kept = c.execute(sys.argv[1]).fetchall() == [(True,)]
    c.execute("INSERT INTO account VALUES (-1, 0, 'after the restore')")
    c.execute("CHECKPOINT").fetchall()
    rows = [len(c.execute(f"SELECT * FROM {t}").fetchall()) for t in ("account", "ledger")]
    print(json.dumps([kept, rows]))
    c.close()
"""


class Throttled(Reader):
    """Takes about a third of a second for each copy, whatever its size."""

    def pieces(self, descriptor: int, size: int) -> Iterator[bytes]:
        step = max(size // 16, 4096)
        offset = 0
        while offset < size and (piece := os.pread(descriptor, min(step, size - offset), offset)):
            yield piece
            offset += len(piece)
            time.sleep(0.02)


def opened_again(paths: list[Path]) -> list[tuple[bool, list[int]]]:
    ran = subprocess.run(
        [sys.executable, "-c", OPEN, writer.PROMISES, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [(kept, rows) for kept, rows in map(json.loads, ran.stdout.splitlines())]


def test_no_capture_under_a_hard_writer_breaks_its_promises(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    wanted = int(pytestconfig.getoption("--duckdb-captures"))
    live = tmp_path / "hammered.duckdb"
    writer.prepare(str(live), 60_000)
    waiting: list[Path] = []
    counts: list[tuple[int, int]] = []
    tries, unstable, opened, logs = 0, 0, 0, 0
    began = time.monotonic()
    with written(live):
        while opened + len(waiting) < wanted:
            patience = Patience(tries=40)
            reader = Throttled() if tries % 3 == 0 else None
            tries += 1
            try:
                found = taken(source(live), tmp_path, patience, reader)
            except SourceUnstable:
                unstable += 1
                assert unstable <= wanted // 10
                continue
            tables = found.evidence.facts["tables"]
            counts.append((tables["account"], tables["ledger"]))
            logs += len(found.paths) == 2
            waiting.append(stage(found, tmp_path / f"copy-{tries}") / live.name)
            if len(waiting) == _BATCH or opened + len(waiting) == wanted:
                for path, (kept, (accounts, ledger)) in zip(
                    waiting, opened_again(waiting), strict=True
                ):
                    assert kept, path
                    assert (accounts - 1, ledger) == counts[opened], path
                    opened += 1
                for path in waiting:
                    for file in path.parent.iterdir():
                        file.unlink()
                waiting = []
    sys.stdout.write(
        f"{opened} captures, {logs} of them with a log, {len(set(counts))} states, {unstable} "
        f"refused as unstable, in {time.monotonic() - began:.0f} s\n"
    )
    assert opened == wanted
    assert logs
