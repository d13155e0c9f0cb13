"""Our verbs beside restic's commands, in one repository at one time."""

from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from mcp_backup.opening import opened
from mcp_backup.progress import Listener, Progress
from mcp_backup.verbs import CreateRequest, Level
from tests.interop.conftest import Restic
from tests.interop.test_locks import ALONE, SHARING, held, lock_files
from tests.system import System, make_system


@pytest.fixture
async def system(tmp_path: Path) -> System:
    return await make_system(tmp_path / "system", rows=20)


@pytest.fixture
def judge(restic: Restic, system: System) -> Restic:
    return restic.at(system.repository, system.password)


def meanwhile(judge: Restic, *command: str | Path, told: list[tuple[int, str]]) -> Listener:
    """A listener that runs restic once, while our lock is held."""

    async def listen(progress: Progress) -> None:
        if not told:
            told.append((0, ""))
            done = await to_thread.run_sync(lambda: judge.run(*command))
            told[0] = done.returncode, done.stdout + done.stderr

    return listen


async def test_a_backup_waits_for_a_restic_that_works_alone_and_then_runs(
    system: System, judge: Restic
) -> None:
    began: list[str] = []

    async def listen(progress: Progress) -> None:
        began.append(progress.subject)

    async with opened(system.settings) as engine, anyio.create_task_group() as tasks:
        with held(judge, *ALONE):
            tasks.start_soon(engine.create, CreateRequest(verify=False), listen)
            await anyio.sleep(1.5)  # longer than a lock takes: it would have begun by now
            assert began == []
    assert began
    assert len(judge.json("snapshots")) == 1


async def test_a_backup_runs_beside_a_restic_that_backs_up(system: System, judge: Restic) -> None:
    async with system.engine() as engine:
        with held(judge, *SHARING):
            assert (await engine.create(CreateRequest())).status == "completed"
            assert (await engine.verify("latest", Level.RESTORE)).ok
            assert (await engine.check(Level.DATA)).ok


@pytest.mark.parametrize("command", ["prune", "check", "rebuild-index"])
async def test_restic_does_not_tidy_up_while_we_back_up(
    system: System, judge: Restic, command: str
) -> None:
    told: list[tuple[int, str]] = []
    async with system.engine() as engine:
        listener = meanwhile(judge, command, told=told)
        report = await engine.create(CreateRequest(verify=False), listener)
        ((code, text),) = told
        assert code != 0
        assert "already locked" in text
        assert (await engine.verify(report.backup_id, Level.RESTORE)).ok
    assert judge.run(command).returncode == 0


async def test_restic_backs_up_while_we_do(system: System, judge: Restic) -> None:
    told: list[tuple[int, str]] = []
    async with system.engine() as engine:
        listener = meanwhile(judge, "backup", system.project, told=told)
        await engine.create(CreateRequest(), listener)
        assert told[0][0] == 0, told
        assert [entry.ours for entry in (await engine.backups()).entries] in (
            [True, False],
            [False, True],
        )
        assert (await engine.check(Level.DATA)).ok
    assert "no errors were found" in judge("check", "--read-data")
    assert lock_files(judge) == set()
