"""A process that restores; it or its worker is killed in the middle of the first exchange.

    python -m tests.crash.dying_child ROOT late|orphaned MILLISECONDS

`late` is the process itself, so long after the exchange has begun; `orphaned` its worker, and the
error that the restore then raised is printed.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import anyio

from mcp_backup.errors import BackupError
from mcp_backup.restore.journal import Steps
from mcp_backup.verbs_restores import RestoreRequest
from tests.processes import workers
from tests.restore.bench import bench
from tests.system import System, settings_of


def later(milliseconds: int, victim: Callable[[], int]) -> Steps:
    """Kill a process so long after the first exchange has begun."""

    def step(what: str) -> None:
        if what == "exchange databases/notes":
            Timer(milliseconds / 1000, lambda: os.kill(victim(), signal.SIGKILL)).start()

    return step


def newest_worker() -> int:
    """The worker that was started last."""
    return max(workers("mcp_backup.sources.worker"))


async def main(root: Path, who: str, milliseconds: int) -> None:
    victim = {"late": os.getpid, "orphaned": newest_worker}[who]
    try:
        async with bench(System(root, settings_of(root)), later(milliseconds, victim)) as on:
            await on.restore(RestoreRequest(databases=("notes",)))
        sys.stdout.write("restored")  # it was quicker
    except BackupError as error:
        sys.stdout.write(type(error).__name__)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
