"""A process that restores, undoes or recovers, and kills itself before its nth step.

    python -m tests.crash.restore_child ROOT restore|rollback|undo|recover N

N = 0 lets it end; it then prints its steps, one a line. `rollback` makes the second exchange fail.
With `late`, it restores and is killed N milliseconds into the first exchange; with `orphaned`,
the worker that does the exchange is, and the error that the restore then raised is printed.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import anyio

from mcp_backup.errors import BackupError, RolledBack
from mcp_backup.restore.journal import Steps, read_all
from mcp_backup.sources.source import Component
from mcp_backup.verbs import RestoreRequest
from tests.restore.bench import bench, restorer_on, state_of
from tests.system import System, settings_of

BOTH = RestoreRequest(databases=("notes",), components=(Component.CONFIG,))


def killing(at: int, taken: list[str]) -> Steps:
    """Count steps, and die before the one that is `at`."""

    def step(what: str) -> None:
        taken.append(what)
        if len(taken) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def sabotaging(system: System, step: Steps) -> Steps:
    """Make the exchange of the project fail: what is staged of it is no more."""

    def sabotage(what: str) -> None:
        if what == "exchange config/project":
            (record,) = read_all(state_of(system) / "restores")
            (record.directory / "staged" / "config" / "project" / ".env").unlink()
        step(what)

    return sabotage


async def restore(system: System, step: Steps) -> None:
    async with bench(system, step) as on:
        await on.restore(BOTH)


async def rollback(system: System, step: Steps) -> None:
    try:
        await restore(system, sabotaging(system, step))
    except RolledBack:
        return
    raise AssertionError("the exchange did not fail")


async def undo(system: System, step: Steps) -> None:
    restorer = restorer_on(system, step)
    (point,) = await restorer.undo_points()
    await restorer.undo(point.restore_id, consent=True)


async def recover(system: System, step: Steps) -> None:
    await restorer_on(system, step).recover()


def later(milliseconds: int, victim: Callable[[], int]) -> Steps:
    """Kill a process so long after the first exchange has begun."""

    def step(what: str) -> None:
        if what == "exchange databases/notes":
            Timer(milliseconds / 1000, lambda: os.kill(victim(), signal.SIGKILL)).start()

    return step


def newest_child() -> int:
    """The worker that was started last."""
    tasks = Path("/proc/self/task").glob("*/children")
    return max(int(pid) for task in tasks for pid in task.read_text().split())


async def late(system: System, milliseconds: int) -> None:
    await restore(system, later(milliseconds, os.getpid))


async def orphaned(system: System, milliseconds: int) -> None:
    try:
        await restore(system, later(milliseconds, newest_child))
        sys.stdout.write("restored")  # it was quicker
    except BackupError as error:
        sys.stdout.write(type(error).__name__)


def main() -> None:
    root, verb, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if verb in ("late", "orphaned"):
        timed = {"late": late, "orphaned": orphaned}[verb]
        anyio.run(timed, System(root, settings_of(root)), at)
        return
    taken: list[str] = []
    work = {"restore": restore, "rollback": rollback, "undo": undo, "recover": recover}[verb]
    anyio.run(work, System(root, settings_of(root)), killing(at, taken))
    sys.stdout.write("\n".join(taken))


if __name__ == "__main__":
    main()
