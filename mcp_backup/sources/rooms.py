"""Two rooms that pieces of a file are read into in turn: one is hashed while the other is filled.

Both reading and hashing let go of the interpreter, so they go on side by side; and rooms that are
kept cost no memory anew for each piece, which takes longer than to read it on some machines.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager


class Rooms:
    """The two rooms, used by one thread; `two_rooms` provides them."""

    def __init__(self, beside: Executor, size: int) -> None:
        """Make two of `size` bytes; work on what is in them is done by `beside`, one thread."""
        self._beside, self._working = beside, deque[Future[None]]()
        self._rooms = [memoryview(bytearray(size)) for _ in range(2)]

    def next(self) -> memoryview:
        """Return the room to be filled, when the work on what is in it has been done."""
        self._rooms.reverse()
        while len(self._working) >= len(self._rooms):
            self._working.popleft().result()
        return self._rooms[0]

    def give(self, work: Callable[[memoryview], None], piece: memoryview) -> None:
        """Have `work` done on a piece of the room returned last; once for each room."""
        self._working.append(self._beside.submit(work, piece))

    def end(self) -> None:
        """Wait until all work is done; raise what it raised."""
        while self._working:
            self._working.popleft().result()


@contextmanager
def two_rooms(size: int) -> Iterator[Rooms]:
    """Provide two rooms of `size` bytes. All work on them is done after the block."""
    with ThreadPoolExecutor(1) as beside:
        rooms = Rooms(beside, size)
        yield rooms
        rooms.end()
