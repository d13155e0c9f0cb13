"""One restore at a time: of all processes with one state directory, one may exchange."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread
from filelock import FileLock, Timeout

from mcp_backup.durable import make_directory_durably
from mcp_backup.errors import TargetBusy

_POLL_SECONDS = 0.05
WAIT_SECONDS = 10.0  # a small restore takes less; whoever waits for a large one should be told


@asynccontextmanager
async def turn(state: Path, wait_seconds: float = WAIT_SECONDS) -> AsyncIterator[None]:
    """Hold the restore lock of `state` for the block.

    It is the kernel's lock on an open file: it ends with its process, and no child inherits it.

    Raises:
        TargetBusy: another restore holds it for longer than `wait_seconds`.
    """
    await to_thread.run_sync(make_directory_durably, state)
    lock = FileLock(state / "restore.lock", thread_local=False, mode=0o600)
    deadline = anyio.current_time() + wait_seconds
    while not _taken(lock):
        if anyio.current_time() >= deadline:
            raise TargetBusy(
                f"another restore is running (it holds {state / 'restore.lock'})",
                hint="Wait until it has ended and try again. Nothing was touched.",
            )
        await anyio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
