"""Workers that a fork server becomes: what a spawned one promises, they do too, and are quick."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from mcp_backup import __main__, worker_processes
from mcp_backup.errors import WorkerDied
from mcp_backup.repository.pool import SEALING
from mcp_backup.sources.capture import CAPTURING
from mcp_backup.workers import Worker, forking, worker
from tests.processes import below, command_of, parent_of, workers

pytestmark = pytest.mark.skipif(not worker_processes.can_fork(), reason="cannot fork here")
SOURCES = CAPTURING[0]
PATIENCE = 10  # seconds


@asynccontextmanager
async def asked_nothing() -> AsyncIterator[Worker]:
    """A worker that has begun, and does nothing by itself."""
    async with worker(SOURCES, "a test") as child:
        await until(lambda: child.pid in workers(SOURCES))
        yield child


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 - nothing tells of another process's name
            await anyio.sleep(0.005)


async def test_workers_are_children_of_one_server_that_ends_with_the_block() -> None:
    async with forking(*CAPTURING):
        assert list(below(os.getpid())) == []  # until there is something to do
        async with asked_nothing() as first, asked_nothing() as second:
            (server,) = {parent_of(first.pid), parent_of(second.pid)}
            assert parent_of(server) == os.getpid()
    assert list(below(os.getpid())) == []


async def test_outside_of_a_block_a_worker_is_an_interpreter_of_its_own() -> None:
    async with asked_nothing() as child:
        assert parent_of(child.pid) == os.getpid()


async def test_blocks_within_a_block_share_its_server() -> None:
    async with forking(SEALING), forking(*CAPTURING), asked_nothing(), asked_nothing():
        assert len({parent_of(pid) for pid in workers(SOURCES)}) == 1


async def test_a_worker_that_is_killed_is_told_with_its_signal() -> None:
    async with forking(*CAPTURING):
        async with asked_nothing() as child:
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="for a test was killed by signal 9"):
                await child.receive()
        async with asked_nothing():  # and another one does as if nothing had been
            pass


async def test_a_worker_that_fails_says_why_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with forking(), worker(SOURCES, "a test") as child:
        await child.send("no such operation")
        with pytest.raises(WorkerDied, match="for a test ended with status 1"):
            await child.receive()
    assert "KeyError: 'no such operation'" in caplog.text


async def test_without_its_server_a_worker_ends_and_the_next_is_refused_in_a_sentence() -> None:
    with anyio.fail_after(PATIENCE):
        async with forking(*CAPTURING):
            async with asked_nothing() as child:
                os.kill(parent_of(child.pid), signal.SIGKILL)
                with pytest.raises(WorkerDied, match="for a test was killed by signal 9"):
                    await child.receive()
            with pytest.raises(WorkerDied, match="for a test could not be forked"):
                await worker(SOURCES, "a test").__aenter__()
    assert list(below(os.getpid())) == []


async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_processes, "_PATIENCE_SECONDS", 0.1)
    async with forking(*CAPTURING), asked_nothing() as child:
        server = parent_of(child.pid)
        os.kill(server, signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="for a test could not be forked: timed out"):
            await worker(SOURCES, "a test").__aenter__()
        os.kill(server, signal.SIGCONT)


async def test_a_cancel_kills_the_worker_and_ends_the_server() -> None:
    with anyio.CancelScope() as scope:
        async with forking(*CAPTURING), asked_nothing() as child:
            scope.cancel()
            await child.receive()
    assert scope.cancelled_caught
    assert list(below(os.getpid())) == []


async def test_a_worker_has_no_descriptors_of_the_others() -> None:
    """Else one that died would be waited for as long as another lives."""
    async with forking(*CAPTURING), asked_nothing() as first, asked_nothing() as second:
        ends = [inodes(first.pid), inodes(second.pid)]
        assert ends[0] & ends[1] == set()
        await until(lambda: not inodes(parent_of(first.pid)) & (ends[0] | ends[1]))


def inodes(pid: int) -> set[str]:
    """The sockets that a process has open."""
    names = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return {name for name in names if name.startswith("socket:")}


def test_a_server_whose_parent_was_killed_starts_nothing_that_was_asked_of_it_before() -> None:
    """What is to be done may be on its way already; the next start must not meet it at work."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    channel, end = socket.socketpair()
    status, told = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with ours, theirs, channel, end, status, told:
        files = [end.fileno(), sys.stderr.fileno(), told.fileno()]
        socket.send_fds(ours, [f'["{SOURCES}", 0]'.encode()], files)
        words = ["-m", "mcp_backup.fork_server", str(theirs.fileno()), str(os.getppid())]
        server = subprocess.Popen([sys.executable, *words], pass_fds=[theirs.fileno()])
        assert server.wait(PATIENCE) == 0
        told.close()
        assert status.recv(100) == b""


def test_a_command_has_its_workers_loaded_beside_it_and_leaves_no_process(tmp_path: Path) -> None:
    """Whatever becomes of it: this one has no settings."""
    with subprocess.Popen(
        [sys.executable, "-m", "mcp_backup", "create"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
    ) as process:
        met: set[int] = set()
        while process.poll() is None:
            met |= {pid for pid in below(process.pid) if "fork_server" in command_of(pid)}
            time.sleep(0.002)  # nobody tells when somebody else's child begins
        assert process.returncode == 2
    assert len(met) == (len(os.sched_getaffinity(0)) > 1)
    assert [pid for pid in met if parent_of(pid)] == []


def test_what_a_command_has_loaded_ahead_is_what_its_workers_run() -> None:
    """Written twice, since what names it elsewhere takes a tenth of a second to load."""
    assert (__main__._SEALING, __main__._CAPTURING) == ((SEALING,), CAPTURING)


async def test_what_cannot_be_loaded_ahead_is_told_by_the_worker_that_needs_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with forking("mcp_backup.no_such_module"):
        async with asked_nothing():
            pass
        async with worker("mcp_backup.no_such_module", "a test") as child:
            with pytest.raises(WorkerDied, match="for a test ended with status 1"):
                await child.receive()
    assert "No module named 'mcp_backup.no_such_module'" in caplog.text


async def settled_descriptors(pid: int) -> set[int]:
    """The descriptors of a process, once it has closed what came with its last request."""
    before = set[int]()
    while before != (now := set(map(int, os.listdir(f"/proc/{pid}/fd")))):
        before = now
        await anyio.sleep(0.1)
    return now


async def test_without_room_for_another_process_the_next_worker_is_refused_with_the_reason() -> (
    None
):
    """And those that are at work go on."""
    async with forking(*CAPTURING), asked_nothing() as child:
        server = parent_of(child.pid)
        taken = await settled_descriptors(server)
        free = [number for number in range(max(taken) + 5) if number not in taken]
        most = free[3]  # three come with the request: there is none left for the worker's handle
        before = resource.prlimit(server, resource.RLIMIT_NOFILE)
        resource.prlimit(server, resource.RLIMIT_NOFILE, (most, before[1]))
        with pytest.raises(WorkerDied, match="for a test could not be forked: Too many open files"):
            await worker(SOURCES, "a test").__aenter__()
        assert workers(SOURCES) == [child.pid]
        resource.prlimit(server, resource.RLIMIT_NOFILE, before)
        async with asked_nothing():
            pass


def test_a_program_that_cannot_start_its_server_ahead_goes_on_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_processes, "_popen", refuse)
    worker_processes.begin_ahead(SEALING)
    assert worker_processes.begun_ahead() is None


async def test_a_server_that_cannot_start_is_told_by_the_worker_that_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_processes, "_popen", refuse)
    async with forking(SEALING):
        for _ in range(2):
            with pytest.raises(WorkerDied, match="could not be forked: Operation not permitted"):
                await worker(SOURCES, "a test").__aenter__()


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("library", [os, signal], ids=["open", "signal"])
def test_where_processes_have_no_descriptors_workers_are_spawned(
    monkeypatch: pytest.MonkeyPatch, library: ModuleType
) -> None:
    name = {os: "pidfd_open", signal: "pidfd_send_signal"}[library]
    monkeypatch.setattr(library, name, refuse)
    assert not worker_processes.can_fork()

    async def parent() -> int:
        async with forking(*CAPTURING), asked_nothing() as child:
            return parent_of(child.pid)

    assert anyio.run(parent) == os.getpid()
