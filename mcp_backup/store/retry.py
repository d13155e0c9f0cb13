"""A store that tries again: only `StoreUnavailable`, the one error that may pass by itself.

Every call of a store may be repeated: a `put` whose answer was lost finds its own bytes and
succeeds, a `delete` finds nothing and succeeds.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import TypeVar

import anyio

from mcp_backup.errors import StoreUnavailable
from mcp_backup.store.store import Store

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)

_FIRST_DELAY = timedelta(milliseconds=500)  # then twice as long each time: 0.5, 1, 2 seconds


class RetryingStore:
    """`store`, each call tried up to `tries` times. Never in doubt about anything but time.

    A cancel is seen while waiting between tries, and leaves what the last try left.
    """

    def __init__(
        self,
        store: Store,
        tries: int = 4,
        first_delay: timedelta = _FIRST_DELAY,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """Wrap `store`; `sleep` waits a number of seconds."""
        self._store = store
        self._tries = tries
        self._first_delay = first_delay
        self._sleep = sleep

    @property
    def location(self) -> str:
        """The wrapped store's location."""
        return self._store.location

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Store `data` under `name`."""
        await self._tried(f"put {name}", lambda: self._store.put(name, data))

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follows `offset`."""
        return await self._tried(f"get {name}", lambda: self._store.get(name, offset, length))

    async def get_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset`."""
        await self._tried(f"get {name}", lambda: self._store.get_into(name, offset, out))

    async def size(self, name: str) -> int:
        """Return the object's size in bytes."""
        return await self._tried(f"size {name}", lambda: self._store.size(name))

    async def is_prompt(self) -> bool:
        """Tell what the wrapped store tells."""
        return await self._store.is_prompt()

    async def objects(self, prefix: str) -> Mapping[str, int]:
        """Return name → size in bytes of what is under `prefix`."""
        return await self._tried(f"list {prefix}", lambda: self._store.objects(prefix))

    async def names(self, prefix: str) -> Collection[str]:
        """Return the names of what is under `prefix`."""
        return await self._tried(f"list {prefix}", lambda: self._store.names(prefix))

    async def delete(self, name: str) -> None:
        """Remove the object."""
        await self._tried(f"delete {name}", lambda: self._store.delete(name))

    async def _tried(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        delay = self._first_delay
        for left in range(self._tries - 1, 0, -1):
            try:
                return await call()
            except StoreUnavailable as error:
                logger.warning("store unavailable: %s, tries left: %d: %s", what, left, error)
            await self._sleep(delay.total_seconds())
            delay *= 2
        return await call()
