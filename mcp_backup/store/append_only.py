"""A store that is only added to: deleting is refused, but for locks, which every run has to remove.

It keeps a program of ours from deleting, whatever it was talked into. What keeps a thief from it
is a credential that may not delete; this class then says the same, before the store does.
"""

from collections.abc import Collection, Mapping

from mcp_backup.errors import StoreDenied
from mcp_backup.store.store import Store

_LOCKS = "locks/"
ELSEWHERE = (
    "Run this where the repository may be deleted from: with other settings, without "
    "`repository.append_only`, best on another machine with a credential of its own. "
    "Nothing was deleted."
)


class AppendOnlyStore:
    """`store`, of which nothing but locks can be deleted through this."""

    def __init__(self, store: Store) -> None:
        """Wrap `store`."""
        self._store = store

    @property
    def location(self) -> str:
        """The wrapped store's location."""
        return self._store.location

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Store `data` under `name`."""
        await self._store.put(name, data)

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follows `offset`."""
        return await self._store.get(name, offset, length)

    async def get_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset`."""
        await self._store.get_into(name, offset, out)

    async def size(self, name: str) -> int:
        """Return the object's size in bytes."""
        return await self._store.size(name)

    async def objects(self, prefix: str) -> Mapping[str, int]:
        """Return name → size in bytes of what is under `prefix`."""
        return await self._store.objects(prefix)

    async def names(self, prefix: str) -> Collection[str]:
        """Return the names of what is under `prefix`."""
        return await self._store.names(prefix)

    async def is_prompt(self) -> bool:
        """Tell what the wrapped store tells."""
        return await self._store.is_prompt()

    async def delete(self, name: str) -> None:
        """Remove a lock.

        Raises:
            StoreDenied: it is not a lock; nothing was asked of the store.
        """
        if not name.startswith(_LOCKS):
            raise StoreDenied(
                f"delete {name}: {self.location} is only added to, by the settings", hint=ELSEWHERE
            )
        await self._store.delete(name)
