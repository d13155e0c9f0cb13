"""Progress, told to the client that asked for it."""

import math
from collections.abc import Awaitable, Callable

import anyio

from mcp_backup.progress import Listener, Progress

_PAUSE_SECONDS = 0.2  # between two reports: a person sees no difference, and the wire stays quiet


Tell = Callable[[float, float | None, str | None], Awaitable[None]]


def listener(tell: Tell, clock: Callable[[], float] = anyio.current_time) -> Listener:
    """Return a listener that hands on to a client what it is told, by `tell`.

    The protocol wants one number that only rises, and stages and sources each start again at
    nothing, so what is told is the sum over all of them seen so far.
    """
    seen: dict[tuple[str, str], Progress] = {}
    told, due = -1, -math.inf

    async def listen(progress: Progress) -> None:
        nonlocal told, due
        seen[progress.stage, progress.subject] = progress
        done = sum(each.done for each in seen.values())
        if clock() < due or done <= told:
            return
        told, due = done, clock() + _PAUSE_SECONDS
        known = all(each.total for each in seen.values())
        total = sum(each.total for each in seen.values()) if known else None
        await tell(done, total, _message(progress))

    return listen


def _message(progress: Progress) -> str:
    share = f" {100 * progress.done // progress.total} %" if progress.total else ""
    return f"{progress.stage} {progress.subject}{share}"
