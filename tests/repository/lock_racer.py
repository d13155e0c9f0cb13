"""A process that wants a repository for itself, again and again; for `test_lock_races`.

    python -m tests.repository.lock_racer REPOSITORY TIMES

Waits for a line, then tells "alone" or "together" for each time that it had the lock, and
"refused" for each time that it had not.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import anyio

from mcp_backup.errors import RepositoryLocked
from mcp_backup.repository.locks import LockTimes, locked
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.local import LocalStore
from tests.doubles import FrozenClock
from tests.repository.packing import PASSWORD

# with a wait of an hour, only a store that needs none gets anywhere
TIMES = LockTimes(settle=timedelta(hours=1))


async def race(root: Path, times: int) -> None:
    repository = await open_repository(
        LocalStore(root), PASSWORD, now=FrozenClock(), hostname="here", username="tester"
    )
    _tell("ready")
    sys.stdin.readline()
    for _ in range(times):
        _tell(await _once(repository, root.parent / "inside"))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _once(repository: Repository, inside: Path) -> str:
    try:
        async with locked(repository, exclusive=True, times=TIMES):
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return "together"
            await anyio.sleep(0.001)
            inside.unlink()
            return "alone"
    except RepositoryLocked:
        return "refused"


if __name__ == "__main__":
    anyio.run(race, Path(sys.argv[1]), int(sys.argv[2]))
