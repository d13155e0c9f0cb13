"""The processes that workers run in: started as fresh interpreters, or by a fork server.

An operation that will need several workers has a `ForkServer` of its own (`workers.forking`); the
terminal starts one ahead, so that it loads while the program does. Blocking, and without an event
loop's libraries, since it is the first thing that the program loads.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from mcp_backup.arena import Arena
from mcp_backup.errors import WorkerDied
from mcp_backup.fork_server import MAX_PACKET

_SERVER = "mcp_backup.fork_server"
_SECRET_ENVIRONMENT = "MCP_BACKUP_PASSWORD"  # noqa: S105 - a prefix of names, not a password
_GRACE_SECONDS = 2.0  # what a server gets to end by itself before it is killed
_PATIENCE_SECONDS = 60.0  # what it gets to load a module and fork: a hundred times what it takes


class Process(Protocol):
    """A worker's process. `wait` and `kill` may be called by any thread."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        ...

    def wait(self, seconds: float | None) -> int | None:
        """Wait for its end; return its status as `subprocess` does, or None when time is up."""
        ...


class Spawned:
    """A process of an interpreter of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Wrap a child of this process."""
        self._process = process
        self.pid = process.pid
        self.kill = process.kill

    def wait(self, seconds: float | None) -> int | None:
        """Wait for its end; see `Process.wait`."""
        if seconds and self._process.returncode is None and hasattr(os, "pidfd_open"):
            with suppress(OSError):  # an old kernel, or too many open files
                descriptor = os.pidfd_open(self.pid)
                try:
                    _readable(descriptor, seconds)
                finally:
                    os.close(descriptor)
                seconds = 0  # else `wait` would sleep in between
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Forked:
    """A child of a fork server."""

    def __init__(self, pid: int, handle: int, status: socket.socket) -> None:
        """Take over its pidfd and our end of its status socket."""
        self.pid = pid
        self._handle, self._status = handle, status
        self._code: int | None = None
        self._turn, self._waiting = threading.Lock(), threading.Lock()

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        with self._turn, suppress(ProcessLookupError):
            if self._code is None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wait(self, seconds: float | None) -> int | None:
        """Wait for its end; see `Process.wait`.

        When the server has gone, which alone can tell its status, it is killed.
        """
        with self._waiting:
            if self._code is None and _readable(self._status.fileno(), seconds):
                told = self._status.recv(MAX_PACKET)
                if not told:
                    self.kill()
                    _readable(self._handle, None)
                with self._turn:
                    self._code = int(told) if told else -signal.SIGKILL
                    self._status.close()
                    os.close(self._handle)
            return self._code


class ForkServer:
    """A fork server of this process; it starts with `begin`, or when first asked for a worker."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Have it load `modules`, in that order, while it is not asked for workers."""
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._control, self._theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()

    def begin(self) -> None:
        """Start it, unless it has started; does not wait until it has loaded anything.

        Raises:
            OSError: there is no room for another process.
        """
        with self._turn:
            if self._process is None:
                words = [str(self._theirs.fileno()), str(os.getpid()), *self._modules]
                descriptors = [self._theirs.fileno()]
                self._process = _popen(["-P", "-m", _SERVER, *words], descriptors, None)
                self._theirs.close()

    def start(
        self,
        program: str,
        channel: socket.socket,
        stderr: IO[bytes],
        arena: Arena | None,
        task: str,
    ) -> Forked:
        """Have it become `program`, whose `main` is called with what `serve_child` expects.

        Raises:
            WorkerDied: the server has gone or does not answer, or there is no room for a process.
        """
        status, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        status.settimeout(_PATIENCE_SECONDS)
        try:
            with theirs:
                self.begin()
                descriptors = [channel.fileno(), stderr.fileno(), theirs.fileno()]
                descriptors += [arena.fd] if arena else []
                packet = json.dumps([program, arena.slots if arena else 0]).encode()
                socket.send_fds(self._control, [packet], descriptors)
            told, handles, _, _ = socket.recv_fds(status, MAX_PACKET, 1)
        except OSError as error:
            status.close()
            raise WorkerDied(task, f"could not be forked: {error.strerror or error}") from error
        if not handles:
            status.close()
            why = told.decode() or "the process that does it has ended"
            raise WorkerDied(task, f"could not be forked: {why}")
        return Forked(int(told), handles[0], status)

    def close(self) -> None:
        """End it; its workers should have ended."""
        self._control.close()
        self._theirs.close()
        if self._process is not None:
            process = Spawned(self._process)
            if process.wait(_GRACE_SECONDS) is None:
                process.kill()
                process.wait(None)


_ahead: list[ForkServer] = []


def can_fork() -> bool:
    """Tell whether there can be fork servers here: where processes have descriptors."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except OSError:  # an old kernel, or a sandbox that does not know the calls
        return False
    return True


def begin_ahead(*modules: str) -> None:
    """Start a fork server for all that this process will do, where a processor is free."""
    if can_fork() and len(os.sched_getaffinity(0)) > 1:
        server = ForkServer(modules)
        try:
            server.begin()
        except OSError:  # it is only to be quicker; who needs a worker tries again, and tells
            server.close()
        else:
            _ahead.append(server)


def begun_ahead() -> ForkServer | None:
    """Return what `begin_ahead` started."""
    return _ahead[0] if _ahead else None


def end_ahead() -> None:
    """End what `begin_ahead` started; its workers should have ended."""
    while _ahead:
        _ahead.pop().close()


def spawned(
    program: str | Path, channel: socket.socket, stderr: IO[bytes], arena: Arena | None
) -> Spawned:
    """Start an interpreter that runs a module, or a script that needs Python's library alone."""
    run = ["-I", "-S", str(program)] if isinstance(program, Path) else ["-P", "-m", program]
    place = f"{arena.fd}:{arena.slots}" if arena else ""
    words = [*run, str(channel.fileno()), place, str(os.getpid())]
    return Spawned(_popen(words, [channel.fileno()] + ([arena.fd] if arena else []), stderr))


def _popen(
    words: Sequence[str], descriptors: Sequence[int], stderr: IO[bytes] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *words],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr or subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is ours to handle, not the child's
        env={k: v for k, v in os.environ.items() if not k.startswith(_SECRET_ENVIRONMENT)},
    )


def _readable(descriptor: int, seconds: float | None) -> bool:
    """Wait until a descriptor has something to say; tell whether it has, when time is up."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
