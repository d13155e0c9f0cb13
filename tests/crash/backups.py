"""Backups in processes of their own, to be killed.

    python -m tests.crash.backups

reads one job per line from standard input, forks for each (an interpreter that has all it needs
starts in no time), and answers with the wait status of the backup. A job names the call of the
store at which it is killed, if any.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import anyio
from anyio import to_thread
from msgspec import structs

from mcp_backup.settings_sections import RepositorySettings
from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import CreateRequest
from tests.doubles import Fault, FaultyStore, How, Verb
from tests.system import System, settings_of


@dataclass(frozen=True)
class Job:
    """A backup of the live system in `root`, with repository and state in `place`."""

    root: str
    place: str
    verb: str = "any"
    nth: int = 0
    how: str = "KILL"

    @property
    def system(self) -> System:
        return system_in(Path(self.root), Path(self.place))

    @property
    def store(self) -> FaultyStore:
        store = LocalStore(self.system.repository)
        if not self.nth:
            return FaultyStore(store)
        return FaultyStore(store, Fault(cast(Verb, self.verb), self.nth, How[self.how]))


class Branch(System, frozen=True):
    """A system whose repository is not beside its live files."""

    @property
    def repository(self) -> Path:
        return Path(self.settings.repository.location)


def system_in(root: Path, place: Path) -> Branch:
    """The live files in `root`: one database and the project; repository and state in `place`."""
    settings = settings_of(root)
    return Branch(
        root,
        structs.replace(
            settings,
            databases=settings.databases[:1],
            repository=RepositorySettings(
                location=str(place / "repository"), password_file=root / "backups.key"
            ),
            state_dir=place / "state",
        ),
    )


async def back_up(job: Job) -> None:
    async with job.system.engine(store=job.store) as engine:
        await engine.create(CreateRequest())


class Yard:
    """The parent's end: where jobs are done, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def do(self, job: Job) -> int:
        """Do the job and return how it ended: an exit code, or a signal as a negative number."""
        return await to_thread.run_sync(self._do, job)

    def _do(self, job: Job) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))


@contextmanager
def yard() -> Iterator[Yard]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.backups"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Yard(process)
        process.terminate()


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            anyio.run(back_up, Job(**json.loads(line)))
            os._exit(0)
        sys.stdout.write(f"{os.waitpid(pid, 0)[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
