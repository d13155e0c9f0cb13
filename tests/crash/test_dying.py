"""kill -9 in the middle of the exchange of a database: of its worker's parent, or of the worker."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mcp_backup.restore.recovery import SETTLE_SECONDS
from tests.restore.bench import backed_up, restorer_on
from tests.restore.conftest import copied
from tests.restore.conftest import template as template
from tests.system import System, bodies, change, count


def run(system: System, who: str, milliseconds: int) -> str:
    """Restore in a child; return what it said, or "killed"."""
    words = [sys.executable, "-m", "tests.crash.dying_child", str(system.root), who]
    ended = subprocess.run([*words, str(milliseconds)], capture_output=True, text=True, check=False)
    if ended.returncode == -signal.SIGKILL:
        return "killed"
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def grown(system: System) -> None:
    """Make the backed-up notes large enough for an exchange to be met in the middle."""
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("CREATE TABLE ballast (page BLOB)")
        connection.executemany("INSERT INTO ballast VALUES (?)", [(os.urandom(4000),)] * 5000)


async def emptied(template: Path, tmp_path: Path) -> tuple[System, list[str], list[str]]:
    """A system whose large notes were backed up and then emptied; the notes then, and now."""
    system = copied(template, tmp_path / "system")
    grown(system)
    await backed_up(system)
    new = bodies(system.notes)
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("DELETE FROM ballast")
    change(system.notes)
    return system, new, bodies(system.notes)


@pytest.mark.parametrize("milliseconds", [60, 200])
async def test_killed_while_a_worker_exchanges_a_database_it_is_old_or_new_and_then_new(
    template: Path, tmp_path: Path, milliseconds: int
) -> None:
    """The worker outlives its parent for a moment, and recovery waits for that.

    Where that is long, on a machine that others use, it finds the database locked, and leaves it
    to the next start.
    """
    system, new, old = await emptied(template, tmp_path)
    assert run(system, "late", milliseconds) == "killed"
    starts = 0
    while await restorer_on(system, settle_seconds=SETTLE_SECONDS).recover():
        starts += 1
    assert 1 <= starts <= 3
    assert bodies(system.notes) == new != old
    assert count(system.notes, "ballast") == 5000
    assert await restorer_on(system).recover() == []


@pytest.mark.parametrize("milliseconds", [60, 200])
async def test_when_the_worker_is_killed_the_restore_is_taken_back(
    template: Path, tmp_path: Path, milliseconds: int
) -> None:
    system, new, old = await emptied(template, tmp_path)
    told = run(system, "orphaned", milliseconds)
    assert told in ("RolledBack", "WorkerDied", "restored")
    assert bodies(system.notes) == (new if told == "restored" else old)
    assert count(system.notes, "ballast") == (5000 if told == "restored" else 0)
    assert await restorer_on(system).recover() == []
