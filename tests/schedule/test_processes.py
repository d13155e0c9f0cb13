"""Several processes run the schedule of one repository."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio

from mcp_backup.engine import Engine
from mcp_backup.history import Run
from mcp_backup.verbs import Level
from tests.system import make_system

PATIENCE = 60.0  # seconds; only a failure waits that long


class Process:
    """One of them, with what it logs in a file."""

    def __init__(self, root: Path, number: int) -> None:
        self.log = root / f"process-{number}.log"
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.schedule.child", str(root)], stderr=log
            )

    @property
    def leads(self) -> bool:
        return self.popen.poll() is None and "schedule led by" in self.log.read_text()


@contextmanager
def processes(root: Path, count: int) -> Iterator[Sequence[Process]]:
    with ExitStack() as stack:
        started = []
        for number in range(count):
            process = Process(root, number)
            stack.callback(process.popen.wait)
            stack.callback(process.popen.kill)
            started.append(process)
        yield started


async def until(engine: Engine, enough: Callable[[Sequence[Run]], bool]) -> Sequence[Run]:
    with anyio.fail_after(PATIENCE):
        while not enough(runs := await engine.history.runs(verb="create")):  # noqa: ASYNC110 - another process, or the disk
            await anyio.sleep(0.01)
    return runs


def outcomes(runs: Sequence[Run]) -> Counter[str]:
    return Counter(run.outcome for run in runs)


async def test_when_the_leader_is_killed_in_a_backup_another_takes_over_and_no_slot_runs_twice(
    tmp_path: Path,
) -> None:
    system = await make_system(tmp_path / "system", rows=20_000)
    async with system.engine() as engine:
        with processes(system.root, 3) as started:
            await until(engine, lambda runs: outcomes(runs)["completed"] >= 2)
            (leader,) = [process for process in started if process.leads]
            (interrupted, *_) = await until(engine, lambda runs: runs[0].outcome == "running")
            leader.popen.send_signal(signal.SIGKILL)
            assert leader.popen.wait() == -signal.SIGKILL
            before = outcomes(await engine.history.runs(verb="create"))["completed"]
            runs = await until(engine, lambda runs: outcomes(runs)["completed"] >= before + 2)
            (successor,) = [process for process in started if process.leads]
            assert successor is not leader
        completed = Counter(run.asker.slot for run in runs if run.outcome == "completed")
        assert set(completed.values()) == {1}
        assert outcomes(runs)["interrupted"] == 1
        assert {run.asker.door for run in runs} == {"schedule"}
        assert interrupted.asker.slot in {run.asker.slot for run in runs}
        page = await engine.backups(limit=100)
        assert page.total >= len(completed)
        assert (await engine.check(Level.DATA)).ok
