"""Worker processes, and our end of the channel to each; theirs is in `channel.py`.

Everything that touches a live database, and everything that hashes, compresses and seals in bulk,
runs in a child process: POSIX locks, crashes of a database library and the interpreter lock all
ask for it. A child is a fresh interpreter, or forked by a process that is kept for that (never by
this one, which has threads); it gets one end of a socket pair and, if it needs one, the arena, and
ends when the socket closes, when it is told to, or within a second of its parent's death.
"""

import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import anyio
from anyio import to_thread
from anyio.abc import SocketStream

from mcp_backup.arena import Arena
from mcp_backup.channel import HEADER, Frame, decode_frame
from mcp_backup.errors import WorkerDied
from mcp_backup.worker_processes import ForkServer, Process, begun_ahead, can_fork, spawned

logger = logging.getLogger(__name__)

_MAX_HEAD = 16 << 20  # schema evidence of a database with thousands of tables fits many times over
_MAX_PAYLOAD = 64 << 20
_GRACE_SECONDS = 2.0  # what a child gets to end by itself before it is killed
_niceness: ContextVar[int] = ContextVar("niceness", default=0)
_fork_server: ContextVar[ForkServer | None] = ContextVar("fork_server", default=None)


class Worker:
    """The parent's end: one child and the frames to and from it.

    `send` and `receive` may each be called by one task at a time.
    """

    def __init__(self, task: str, process: Process, stream: SocketStream) -> None:
        """Wrap a running child; use `worker()` to start one."""
        self.task = task
        self._process = process
        self._stream = stream
        self._buffer = bytearray()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def send(self, kind: str, payload: bytes = b"", /, **fields: Any) -> None:
        """Send one frame.

        Raises:
            WorkerDied: the child has gone.
        """
        try:
            await self._stream.send(Frame(kind, fields, payload).encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise WorkerDied(self.task, await self._ending()) from error

    async def receive(self) -> Frame:
        """Wait for the next frame.

        Raises:
            WorkerDied: the child ended instead.
        """
        head_size, payload_size = HEADER.unpack(await self._exactly(HEADER.size))
        if head_size > _MAX_HEAD or payload_size > _MAX_PAYLOAD:
            raise WorkerDied(self.task, f"sent a frame of {head_size} + {payload_size} bytes")
        head = await self._exactly(head_size)
        return decode_frame(head, await self._exactly(payload_size))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                self._buffer += await self._stream.receive(1 << 18)
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                raise WorkerDied(self.task, await self._ending()) from error
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _ending(self) -> str:
        code = await to_thread.run_sync(self._process.wait, _GRACE_SECONDS)
        if code is None:
            return "closed its connection"
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


@contextmanager
def gently(niceness: int) -> Iterator[None]:
    """Have the children started within the block yield to everybody else, by that much.

    Linux gives them the disk by the same measure, as they have no I/O priority of their own.
    """
    token = _niceness.set(niceness)
    try:
        yield
    finally:
        _niceness.reset(token)


@asynccontextmanager
async def forking(*modules: str) -> AsyncIterator[None]:
    """Have the children started within the block forked by one process that loads `modules`.

    It starts with the first of them and ends with the block, unless one was started ahead. Where
    there can be none, and outside of such a block, each child is an interpreter of its own.
    """
    if _fork_server.get() or begun_ahead() or not can_fork():
        yield
        return
    server = ForkServer(modules)
    token = _fork_server.set(server)
    try:
        yield
    finally:
        _fork_server.reset(token)
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(server.close)


@asynccontextmanager
async def worker(
    program: str | Path, task: str, arena: Arena | None = None
) -> AsyncIterator[Worker]:
    """Run the `main` of a module as a child for the duration of the block.

    A `program` that is a path is a script that needs no more than Python's own library.

    `task` words what it is for, for error messages. On leaving, the socket is closed, the child
    gets two seconds to end and is then killed; a cancel kills it at once, so what an operation
    promises under a kill is what it promises under a cancel. No child survives the block. Its
    standard error goes to the log when it ends badly by itself.
    """
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as stderr, ours:
        with theirs:
            process = await to_thread.run_sync(_start, program, task, theirs, arena, stderr)
        cancelled = False
        try:
            ours.setblocking(False)
            async with await SocketStream.from_socket(ours) as stream:
                yield Worker(task, process, stream)
        except Exception:
            raise
        except BaseException:
            cancelled = True
            process.kill()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                code = await to_thread.run_sync(_end, process, ours)
            if code and not cancelled:
                _report(task, code, stderr)


def _start(
    program: str | Path,
    task: str,
    theirs: socket.socket,
    arena: Arena | None,
    stderr: IO[bytes],
) -> Process:
    server = _fork_server.get() or begun_ahead()
    process: Process
    if server is None or isinstance(program, Path):
        process = spawned(program, theirs, stderr, arena)
    else:
        process = server.start(program, theirs, stderr, arena, task)
    if niceness := _niceness.get():
        with suppress(OSError):  # it has ended, and will be told of
            os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    return process


def _end(process: Process, connection: socket.socket) -> int | None:
    connection.close()
    if process.wait(_GRACE_SECONDS) is None:
        process.kill()
    return process.wait(None)


def _report(task: str, code: int, stderr: IO[bytes]) -> None:
    stderr.seek(0)
    text = stderr.read(64 << 10).decode(errors="replace").strip()
    logger.warning("worker for %s ended with status %d: %s", task, code, text or "no message")
