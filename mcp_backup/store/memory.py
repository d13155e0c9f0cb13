"""Objects in a dictionary: the promises at their simplest, to test against and to compare with."""

from collections.abc import Collection, Mapping

from anyio.lowlevel import checkpoint

from mcp_backup.errors import IntegrityError, ObjectMissing
from mcp_backup.store.layout import checked_name, checked_prefix


class MemoryStore:
    """A `Store` that lasts as long as the process; "durable" means no more than that.

    Every call lets other tasks run first, as a real store would. `contents` is the objects
    themselves, for tests that damage one.
    """

    def __init__(self, location: str = "memory") -> None:
        """Begin empty; `location` is what messages call it."""
        self.location = location
        self.contents: dict[str, bytes] = {}

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Store `data` under `name`.

        Raises:
            IntegrityError: the name is taken by other bytes, which were left as they are.
        """
        checked_name(name)
        await checkpoint()
        if self.contents.setdefault(name, bytes(data)) != data:
            raise IntegrityError(
                f"put {name}: {self.location} holds other bytes under that name",
                hint="Run `mcp-backup check`. What is there was not changed.",
            )

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follows `offset`.

        Raises:
            ObjectMissing: there is no such object.
            IntegrityError: the object ends before that.
        """
        data = await self._found(name)
        end = len(data) if length is None else offset + length
        if max(offset, end) > len(data):
            there = max(len(data) - offset, 0)
            raise IntegrityError(f"get {name}: {there} bytes at {offset}, wanted {length or 0}")
        return data[offset:end]

    async def get_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset`; raises what `get` does."""
        out[:] = await self.get(name, offset, len(out))

    async def size(self, name: str) -> int:
        """Return the object's size in bytes.

        Raises:
            ObjectMissing: there is no such object.
        """
        return len(await self._found(name))

    async def is_prompt(self) -> bool:
        """Tell that a listing has everything: it reads the dictionary itself."""
        return True

    async def objects(self, prefix: str) -> Mapping[str, int]:
        """Return name → size in bytes of what is under `prefix`, in the names' order."""
        checked_prefix(prefix)
        await checkpoint()
        return {
            name: len(data)
            for name, data in sorted(self.contents.items())
            if name.startswith(prefix)
        }

    async def names(self, prefix: str) -> Collection[str]:
        """Return the names of what is under `prefix`."""
        return (await self.objects(prefix)).keys()

    async def delete(self, name: str) -> None:
        """Remove the object; removing what is not there succeeds."""
        checked_name(name)
        await checkpoint()
        self.contents.pop(name, None)

    async def _found(self, name: str) -> bytes:
        checked_name(name)
        await checkpoint()
        try:
            return self.contents[name]
        except KeyError:
            raise ObjectMissing(name, self.location) from None
