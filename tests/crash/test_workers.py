"""Processes that die in the middle of a backup: a worker's death is told, a parent's is shared."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pytest

from mcp_backup.channel import Frame
from mcp_backup.errors import NothingBackedUp
from mcp_backup.progress import Listener, Progress
from mcp_backup.verbs import BackupType, CreateRequest, Level
from tests.interop.conftest import Restic
from tests.processes import workers
from tests.system import System, make_system

CAPTURING, SEALING = "mcp_backup.sources.worker", "mcp_backup.repository.sealing"
SIZE = 40 << 20  # enough for the sealing processes to start, and to be in the middle of


@pytest.fixture
async def system(tmp_path: Path) -> System:
    """Two databases with the same bytes, so that the second needs what the first began."""
    system = await make_system(tmp_path / "system", rows=10)
    system.notes.unlink()
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body BLOB)")
        connection.executemany(
            "INSERT INTO notes (body) VALUES (randomblob(?))", [(1 << 16,)] * (SIZE >> 16)
        )
    shutil.copy(system.notes, system.tasks)
    return system


def killer(module: str, source: str = "notes") -> Listener:
    """A listener that kills one worker, once, when some of the source has been stored."""
    killed: list[int] = []

    async def listen(progress: Progress) -> None:
        if progress.subject == source and progress.done > SIZE // 3 and not killed:
            killed.extend(workers(module)[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    return listen


async def test_the_death_of_a_source_worker_is_that_sources_failure_and_nobody_elses(
    system: System, restic: Restic
) -> None:
    async with system.engine() as engine:
        with anyio.fail_after(20):
            report = await engine.create(CreateRequest(verify=False), killer(CAPTURING))
        failed, stored, settings = report.outcomes
        assert (failed.name, failed.outcome, report.status) == ("notes", "failed", "partial")
        assert failed.failure is not None
        assert failed.failure.code == "worker-died"
        assert "capturing source 'notes' was killed by signal 9" in failed.failure.message
        assert (stored.name, stored.outcome, settings.outcome) == ("tasks", "stored", "stored")
        assert (await engine.verify(report.backup_id, Level.RESTORE)).findings == ()
        assert (await engine.check(Level.STRUCTURE)).findings == ()
    judge = restic.at(system.repository, system.password)
    assert "no errors were found" in judge("check")


@pytest.mark.parametrize(
    ("module", "task"), [(CAPTURING, "capturing source 'notes'"), (SEALING, "hashing and sealing")]
)
async def test_a_backup_whose_worker_dies_stores_nothing_says_so_and_works_again(
    system: System, module: str, task: str
) -> None:
    request = CreateRequest(BackupType.DATABASE, databases=("notes",), verify=False)
    async with system.engine() as engine:
        with (
            anyio.fail_after(20),
            pytest.raises(NothingBackedUp, match=f"worker process for {task} was killed by") as no,
        ):
            await engine.create(request, killer(module))
        assert "Try again" in no.value.hint
        assert workers() == []
        assert os.listdir(system.repository / "snapshots") == []
        assert os.listdir(system.repository / "locks") == []
        assert os.listdir(system.settings.scratch) == []
        report = await engine.create(request)
        assert (await engine.verify(report.backup_id, Level.RESTORE)).findings == ()


def test_workers_end_within_two_seconds_of_their_parents_death(system: System) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.wait_in_backup", str(system.root), "2"],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        orphans = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(orphans) >= 2
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 2
    while any(Path(f"/proc/{pid}").exists() for pid in orphans):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.02)  # nobody tells when somebody else's child has ended


def test_a_worker_whose_parent_was_killed_before_it_began_does_nothing() -> None:
    """What it is to do is on its way already; the next start must not meet it at work."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            ours.sendall(Frame("fingerprints", {"specs": []}, b"").encode())
            words = [sys.executable, "-m", CAPTURING, str(theirs.fileno()), "", str(os.getppid())]
            child = subprocess.Popen(words, pass_fds=[theirs.fileno()])
        ours.shutdown(socket.SHUT_WR)
        assert child.wait(60) == 0
        with suppress(ConnectionResetError):  # it went without having read
            assert ours.recv(1) == b""
