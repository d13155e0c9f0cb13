"""Work on what was loaded: aside, when it is much, and on many things at once."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from anyio import to_thread

from mcp_backup.tasks import task_group

_T = TypeVar("_T")
SMALL = 64 << 10  # bytes that take less time to unseal and parse than a hop into a thread costs
_LOADS = 8  # small objects loaded at once: local disks gain nothing from more


async def aside(size: int, work: Callable[[], _T]) -> _T:
    """Do the work on `size` bytes here if they are few, else in a thread."""
    return work() if size < SMALL else await to_thread.run_sync(work)


async def for_each(
    work: Callable[[_T], Awaitable[None]], items: Iterable[_T], limit: int = _LOADS
) -> None:
    """Do the work on each item, `limit` of them at a time. The first failure ends it."""
    remaining = iter(items)

    async def take() -> None:
        for item in remaining:
            await work(item)

    async with task_group() as tasks:
        for _ in range(limit):
            tasks.start_soon(take)
