"""Task groups whose failures keep their names; and modules loaded while other tasks go on.

anyio wraps whatever a task group's children raise into an exception group. Callers of ours are
promised specific errors, so the first expected one comes out as itself, with the others attached
as its context; a group of nothing but bugs stays a group.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from mcp_backup.errors import BackupError


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Provide a task group that raises the first `BackupError` among its failures as itself."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        for leaf in leaves:
            if isinstance(leaf, BackupError):
                raise leaf from leaf.__cause__
        if len(leaves) == 1:
            raise leaves[0] from leaves[0].__cause__
        raise


async def loaded(name: str) -> Any:
    """Return a module, loaded beside the event loop: it may take a tenth of a second."""
    return await to_thread.run_sync(import_module, name)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error
