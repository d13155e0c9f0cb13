"""The stand-ins: a clock that is told the time, and a store that fails as a script says.

Faults are data. A test says which call fails and how, lets the product run, and asserts on what
is left in the store underneath, not on what was called:

    store = FaultyStore(MemoryStore(), Fault("put", 3))
    store = FaultyStore(inner, Fault("put", 2, How.AFTER))  # it was stored; the answer is lost
    store = FaultyStore(inner, Fault("get", 1, How.TRUNCATE, under="data/"))  # the first pack
    store = FaultyStore(inner, Fault("put", 5, times=FOREVER, error=full()))
    store = FaultyStore(inner, Fault("any", 7, How.KILL))

To meet every call once: run with no faults, then for each n of `range(1, len(store.calls) + 1)`.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Literal, TypeVar

import anyio

from mcp_backup.errors import StoreDenied, StoreFull, StoreUnavailable
from mcp_backup.store.store import Store

FOREVER = sys.maxsize
_DELAY_SECONDS = 0.002
Verb = Literal["put", "get", "size", "objects", "delete"]
Answer = TypeVar("Answer")


class FrozenClock:
    """A clock that stands still until it is moved. Call it for the time: aware, in UTC."""

    def __init__(self, now: datetime = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


class How(Enum):
    """What happens at the call a fault is for."""

    BEFORE = "it fails and nothing was done"
    AFTER = "it was done, and the answer is lost"
    TRUNCATE = "get answers one byte less than there is"
    LIE = "get answers with one bit flipped, in the middle"
    OTHER = "get answers with another object of the same directory, sound in itself"
    SHORT = "a listing lacks its last name"
    DELAY = "it is done after a while"
    HANG = "it is never done"
    KILL = "the process is killed before anything is done"
    KILL_AFTER = "the process is killed when it was done"


def unavailable() -> StoreUnavailable:
    """What passes by itself."""
    return StoreUnavailable("scripted: the store did not answer")


def full() -> StoreFull:
    """A disk without space."""
    return StoreFull("scripted: no space left", hint="Free some space. Nothing was lost.")


def denied() -> StoreDenied:
    """A directory that may not be written."""
    return StoreDenied("scripted: permission denied")


@dataclass(frozen=True)
class Fault:
    """One line of the script: the `nth` call (from 1) of `verb` and `times` - 1 after it.

    With `under`, only calls whose name or prefix begins with it are counted.
    """

    verb: Verb | Literal["any"]
    nth: int
    how: How = How.BEFORE
    times: int = 1
    error: BaseException = field(default_factory=unavailable)
    under: str = ""

    def counts(self, verb: Verb, name: str) -> bool:
        return self.verb in ("any", verb) and name.startswith(self.under)


class FaultyStore:
    """Any `Store`, with faults. `calls` is what was asked of it, in order, failed or not."""

    def __init__(self, store: Store, *faults: Fault) -> None:
        self.store = store
        self.calls: list[tuple[Verb, str]] = []
        self._faults = faults
        self._seen = [0] * len(faults)
        self._other = b""

    def begin(self, *faults: Fault) -> None:
        """Go on by another script."""
        self._faults, self._seen = faults, [0] * len(faults)

    @property
    def location(self) -> str:
        return self.store.location

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        await self._played("put", name, lambda: self.store.put(name, data))

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._other = await self._another(name, offset, length)
        return await self._played(
            "get", name, lambda: self.store.get(name, offset, length), damaged=self._damaged
        )

    async def get_into(self, name: str, offset: int, out: memoryview) -> None:
        data = await self.get(name, offset, len(out))
        out[: len(data)] = data

    async def size(self, name: str) -> int:
        return await self._played("size", name, lambda: self.store.size(name))

    async def is_prompt(self) -> bool:
        return await self.store.is_prompt()

    async def objects(self, prefix: str) -> Mapping[str, int]:
        return await self._played(
            "objects", prefix, lambda: self.store.objects(prefix), damaged=_shortened
        )

    async def names(self, prefix: str) -> Collection[str]:
        return await self._played(
            "objects", prefix, lambda: self.store.names(prefix), damaged=_shortened_names
        )

    async def delete(self, name: str) -> None:
        await self._played("delete", name, lambda: self.store.delete(name))

    async def _played(
        self,
        verb: Verb,
        name: str,
        call: Callable[[], Awaitable[Answer]],
        damaged: Callable[[Answer, How], Answer] = lambda answer, _: answer,
    ) -> Answer:
        self.calls.append((verb, name))
        fault = self._due(verb, name)
        if fault is None:
            return await call()
        if fault.how is How.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.how is How.BEFORE:
            raise fault.error
        if fault.how is How.HANG:
            await anyio.sleep_forever()
        if fault.how is How.DELAY:
            await anyio.sleep(_DELAY_SECONDS)
        answer = await call()
        if fault.how is How.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.how is How.AFTER:
            raise fault.error
        return damaged(answer, fault.how)

    def _due(self, verb: Verb, name: str) -> Fault | None:
        due = None
        for number, fault in enumerate(self._faults):
            if fault.counts(verb, name):
                self._seen[number] += 1
                if fault.nth <= self._seen[number] < fault.nth + fault.times:
                    due = due or fault
        return due

    def _damaged(self, answer: bytes, how: How) -> bytes:
        middle = len(answer) // 2
        match how:
            case How.TRUNCATE:
                return answer[:-1]
            case How.LIE:
                return answer[:middle] + bytes([answer[middle] ^ 0x10]) + answer[middle + 1 :]
            case How.OTHER:
                return self._other
        return answer

    async def _another(self, name: str, offset: int, length: int | None) -> bytes:
        """What lies at that place in another object of the directory; nothing if there is none."""
        if not any(fault.how is How.OTHER for fault in self._faults) or "/" not in name:
            return b""
        there = await self.store.objects(name[: name.index("/") + 1])
        for other, size in there.items():
            if other != name and size >= offset + (length or 0):
                return await self.store.get(other, offset, length)
        return b""


def _shortened(answer: Mapping[str, int], how: How) -> Mapping[str, int]:
    return dict(sorted(answer.items())[:-1]) if how is How.SHORT else answer


def _shortened_names(answer: Collection[str], how: How) -> Collection[str]:
    return sorted(answer)[:-1] if how is How.SHORT else answer
