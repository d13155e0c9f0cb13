"""kill -9 before every step of a restore, a rollback, an undo and a recovery.

After each, live data are old or new and never mixed within a database or a file; and the next
start brings all of them to one side, whichever the journal says.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from mcp_backup.restore.journal import read_all
from mcp_backup.restore.recovery import SETTLE_SECONDS
from tests.restore.bench import backed_up, restorer_on, state_of
from tests.restore.conftest import copied
from tests.restore.conftest import template as template
from tests.system import System, bodies, change, count, settings_of

Contents = Mapping[str, object]


def contents(system: System) -> Contents:
    """What a restore changes, as its users see it: the notes, and each file of the project."""
    files: dict[str, object] = {
        str(path.relative_to(system.root)): (path.read_bytes(), path.stat().st_mode)
        for path in sorted(system.project.rglob("*"))
        if path.is_file()
    }
    return {**files, "notes.db": bodies(system.notes)}


def wreck(system: System) -> Contents:
    change(system.notes)
    (system.project / ".env").write_text("TOKEN=wrecked\n")
    (system.project / "settings" / "server.yaml").unlink()
    return contents(system)


def run(system: System, verb: str, at: int) -> list[str] | None:
    """Run the child; return its steps, or None when it killed itself."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.crash.restore_child", str(system.root), verb, str(at)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == -signal.SIGKILL:
        return None
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


class Stage:
    """A place where the same scene can be played again and again, under the same paths."""

    def __init__(self, scene: System) -> None:
        self.system = scene
        self._kept = scene.root.with_name("scene")
        shutil.copytree(scene.root, self._kept)

    def killed_before_every(self, verb: str, since: str = "") -> Iterator[str]:
        """Run the verb to its end, then once for each step from `since`, to be killed before it."""
        steps = run(self.system, verb, 0)
        assert steps is not None
        first = steps.index(since) if since else 0
        for number, step in enumerate(steps[first:], start=first + 1):
            shutil.rmtree(self.system.root)
            shutil.copytree(self._kept, self.system.root)
            assert run(self.system, verb, number) is None
            yield step


def assert_not_torn(found: Contents, old: Contents, new: Contents, step: str) -> None:
    for path in old.keys() | new.keys() | found.keys():
        assert found.get(path) in (old.get(path), new.get(path)), f"{path} at {step!r}"


async def recovered(system: System) -> None:
    """Recover, and see that nothing is left to recover."""
    restorer = restorer_on(system)
    await restorer.recover()
    assert await restorer.recover() == []
    for record in read_all(state_of(system) / "restores"):
        assert record.outcome == "restored"
        assert not (record.directory / "staged").exists()


async def test_a_restore_killed_before_any_step_is_all_old_or_all_new(
    template: Path, tmp_path: Path
) -> None:
    system = copied(template, tmp_path / "system")
    new, old = contents(system), wreck(system)
    begun = False
    for step in Stage(system).killed_before_every("restore"):
        assert_not_torn(contents(system), old, new, step)
        await recovered(system)
        assert contents(system) == (new if begun else old), step
        points = await restorer_on(system).undo_points()
        assert len(points) == (1 if begun else 0), step
        begun = begun or step == "journal exchanging"
    assert begun


async def test_a_rollback_killed_before_any_step_ends_all_old(
    template: Path, tmp_path: Path
) -> None:
    system = copied(template, tmp_path / "system")
    new, old = contents(system), wreck(system)
    for step in Stage(system).killed_before_every("rollback", since="verify config/project"):
        assert_not_torn(contents(system), old, new, step)
        await recovered(system)
        assert contents(system) == old, step
        assert await restorer_on(system).undo_points() == []


async def test_an_undo_killed_before_any_step_is_all_restored_or_all_undone(
    template: Path, tmp_path: Path
) -> None:
    system = copied(template, tmp_path / "system")
    new, old = contents(system), wreck(system)
    assert run(system, "restore", 0)
    assert contents(system) == new
    begun = False
    for step in Stage(system).killed_before_every("undo"):
        assert_not_torn(contents(system), old, new, step)
        await recovered(system)
        assert contents(system) == (old if begun else new), step
        begun = begun or step == "journal exchanging"
    assert begun


@pytest.mark.parametrize("verb", ["restore", "rollback"])
async def test_a_recovery_killed_before_any_step_is_taken_up_again(
    template: Path, tmp_path: Path, verb: str
) -> None:
    system = copied(template, tmp_path / "system")
    new, old = contents(system), wreck(system)
    kept = tmp_path / "before"
    shutil.copytree(system.root, kept)
    steps = run(system, verb, 0)
    assert steps is not None
    shutil.rmtree(system.root)
    kept.rename(system.root)
    middle = {"restore": "exchange config/project", "rollback": "put back databases/notes"}[verb]
    assert run(system, verb, steps.index(middle) + 1) is None
    for step in Stage(system).killed_before_every("recover"):
        assert_not_torn(contents(system), old, new, step)
        await recovered(system)
        assert contents(system) == (new if verb == "restore" else old), step


def test_the_child_says_its_steps(template: Path, tmp_path: Path) -> None:
    system = System(tmp_path / "system", settings_of(tmp_path / "system"))
    shutil.copytree(template, system.root)
    assert run(system, "recover", 0) == []


def grown(system: System) -> None:
    """Make the backed-up notes large enough for an exchange to be met in the middle."""
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("CREATE TABLE ballast (page BLOB)")
        connection.executemany("INSERT INTO ballast VALUES (?)", [(os.urandom(4000),)] * 5000)


@pytest.mark.parametrize("milliseconds", [60, 150, 250])
async def test_killed_while_a_worker_exchanges_a_database_it_is_old_or_new_and_then_new(
    template: Path, tmp_path: Path, milliseconds: int
) -> None:
    """The worker outlives its parent for a moment, and recovery waits for that."""
    system = copied(template, tmp_path / "system")
    grown(system)
    await backed_up(system)
    new = contents(system)
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("DELETE FROM ballast")
    old = wreck(system)
    assert run(system, "late", milliseconds) is None
    await restorer_on(system, settle_seconds=SETTLE_SECONDS).recover()
    assert contents(system) == new != old
    assert count(system.notes, "ballast") == 5000
    assert await restorer_on(system).recover() == []


@pytest.mark.parametrize("milliseconds", [60, 150, 250])
async def test_when_the_worker_is_killed_the_restore_is_taken_back(
    template: Path, tmp_path: Path, milliseconds: int
) -> None:
    system = copied(template, tmp_path / "system")
    grown(system)
    await backed_up(system)
    new = contents(system)
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("DELETE FROM ballast")
    old = wreck(system)
    (told,) = run(system, "orphaned", milliseconds) or []
    assert told in ("RolledBack", "WorkerDied", "restored")
    assert contents(system) == (new if told == "restored" else old)
    assert count(system.notes, "ballast") == (5000 if told == "restored" else 0)
    assert await restorer_on(system).recover() == []
