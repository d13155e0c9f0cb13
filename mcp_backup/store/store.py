"""What a store promises: named, immutable objects.

Names are restic's: `config`, `keys/<id>`, `locks/<id>`, `snapshots/<id>`, `index/<id>`,
`data/<xx>/<id>`, with `/` between the parts whatever the platform.
"""

from collections.abc import Collection, Mapping
from typing import Protocol


class Store(Protocol):
    """Named, immutable objects. All methods may be called concurrently.

    durable     when `put` returns, the object survives a power cut;
    atomic      no reader ever sees part of an object, whatever interrupts `put`;
    immutable   `put` of an existing name with the same bytes succeeds and changes nothing;
    ordered     an object put before another is visible no later than it;
    honest      a missing object is `ObjectMissing`, a full disk `StoreFull`, a refusal
                `StoreDenied`; anything worth trying again is `StoreUnavailable`;
    short       a read returns exactly what was asked for, or raises `IntegrityError`.
    """

    @property
    def location(self) -> str:
        """Where the objects are, for people: a path or a URL, without secrets."""
        ...

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Store `data` under `name`. A cancel leaves the whole object or none."""
        ...

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follows `offset`."""
        ...

    async def get_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset`. A failure or a cancel may leave part of them.

        A cancel waits until nothing is written to `out` any more.
        """
        ...

    async def size(self, name: str) -> int:
        """Return the object's size in bytes."""
        ...

    async def objects(self, prefix: str) -> Mapping[str, int]:
        """Return name → size in bytes of all objects whose name begins with `prefix`.

        `prefix` is "" or ends with "/". Temporary and foreign names are left out. A prefix
        under which there is nothing gives an empty mapping, not an error.
        """
        ...

    async def names(self, prefix: str) -> Collection[str]:
        """Return the names that `objects` would; where sizes cost extra, in less time."""
        ...

    async def delete(self, name: str) -> None:
        """Remove the object; removing what is not there succeeds. Durable like `put`."""
        ...

    async def is_prompt(self) -> bool:
        """Tell whether a listing surely has every object whose `put` returned before it began.

        Whoever put it: another process, another program. False where that may take a moment.
        """
        ...
