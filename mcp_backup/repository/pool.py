"""The sealing pool: one crew for slots, in this process at first, in worker processes under load.

Starting interpreters costs a tenth of a second of every core, more than a small backup needs
altogether; so the first mebibytes of a run are worked on in a thread, and the processes start
when more turns up. A slot of which little is new never makes them start: that is done at once,
in less time than it takes to ask. Either way the same code does the work (`sealing.SlotSealer`),
and nothing else about a backup depends on where.
"""

import os
import sys
from array import array
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from mcp_backup.arena import SLACK, SLOT_SIZE, Arena
from mcp_backup.channel import Frame
from mcp_backup.errors import IntegrityError, StoreFull, WorkerDied
from mcp_backup.format.crypto import MasterKey
from mcp_backup.format.ids import ID_SIZE
from mcp_backup.repository.sealing import NO_FILE, SlotSealer, answer, unsealed
from mcp_backup.tasks import task_group
from mcp_backup.workers import Worker, worker

SEALING = "mcp_backup.repository.sealing"  # the module that workers run
DEFAULT_LEVEL = 1  # zstd; level 3 costs a third more time for 2 % less on databases
_THREAD_BYTES = 32 << 20  # sealed, or four times as much hashed, before processes pay off
_HASHING = 4  # times as fast as sealing
_LITTLE_HASHED, _LITTLE_SEALED = 1 << 20, 256 << 10  # bytes, done in a millisecond
_MAX_WORKERS = 4  # beyond that the capture is the bottleneck
_CAPTURE_SLOTS = 4  # an image's first, one being filled, and two for content-cut batches
MAX_CHUNKS = SLACK // 32  # sealing adds 32 bytes a chunk, and may not overtake its input


class _Hand(Protocol):
    """One member of the crew: answers requests one after the other."""

    async def ask(self, kind: str, payload: bytes, **fields: int | str) -> Frame: ...


class _ThreadHand:
    """Works in a thread of this process."""

    def __init__(self, sealer: SlotSealer) -> None:
        self._sealer = sealer
        self._turn = anyio.Lock(fast_acquire=True)

    async def ask(self, kind: str, payload: bytes, **fields: int | str) -> Frame:
        frame = Frame(kind, fields, payload)
        async with self._turn:
            return await to_thread.run_sync(answer, self._sealer, frame)

    async def ask_little(self, kind: str, payload: bytes, **fields: int | str) -> Frame:
        """Do what takes no longer than to have another thread do it."""
        async with self._turn:
            return answer(self._sealer, Frame(kind, fields, payload))

    async def unseal(self, sealed: bytes, file: int, pieces: bytes) -> Frame:
        async with self._turn:
            return await to_thread.run_sync(unsealed, self._sealer, sealed, file, pieces)


class _Pending:
    """A request on its way: the answer, or why there will be none."""

    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.answer: Frame | None = None
        self.error: WorkerDied | None = None


class _ProcessHand:
    """Works in a child process; requests queue up in its socket."""

    def __init__(self, child: Worker) -> None:
        self._child = child
        self._sending = anyio.Lock(fast_acquire=True)
        self._pending: deque[_Pending] = deque()
        self._gone: WorkerDied | None = None
        self._listening = anyio.CancelScope(shield=True)  # those who ask outlast a cancel

    @property
    def load(self) -> int:
        return len(self._pending)

    async def ask(self, kind: str, payload: bytes, **fields: int | str) -> Frame:
        """Ask and wait for the answer, even when cancelled: until then the slot is the child's."""
        if self._gone is not None:
            raise self._gone
        request = _Pending()
        with anyio.CancelScope(shield=True):  # half a frame would garble all that follow
            async with self._sending:
                self._pending.append(request)
                await self._child.send(kind, payload, **fields)
            await request.done.wait()
        if request.answer is None:
            assert request.error is not None
            raise request.error
        return request.answer

    async def listen(self) -> None:
        """Hand answers to those who wait for them, until `end` or the child is gone.

        However it ends, nobody is left waiting: an event loop that is being closed cancels every
        task at once, shielded or not.
        """
        try:
            with self._listening:
                while True:
                    reply = await self._child.receive()
                    request = self._pending.popleft()
                    request.answer = reply
                    request.done.set()
        except WorkerDied as error:
            self._gone = error
        finally:
            self._refuse_all(self._gone or WorkerDied(self._child.task, "was told to stop"))

    def _refuse_all(self, error: WorkerDied) -> None:
        self._gone = error
        while self._pending:
            request = self._pending.popleft()
            request.error = error
            request.done.set()

    def end(self) -> None:
        """Stop listening: nobody waits for an answer any more."""
        self._listening.cancel()


class Slots:
    """The free slots of an arena. Waiting for one is what keeps memory bounded."""

    def __init__(self, count: int) -> None:
        """Begin with all slots free."""
        self._free = list(range(count))
        self._count = anyio.Semaphore(count, fast_acquire=True)

    async def take(self) -> int:
        """Wait for a free slot and own it."""
        await self._count.acquire()
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Free a slot."""
        self._free.append(slot)
        self._count.release()


class SealingPool:
    """Hashes, seals and unseals slots of its arena. Calls may run concurrently."""

    def __init__(
        self,
        arena: Arena,
        key: MasterKey,
        tasks: TaskGroup,
        stack: AsyncExitStack,
        thread_bytes: int,
    ) -> None:
        """Made by `sealing_pool`, which also ends it."""
        self.arena = arena
        self.slots = Slots(arena.slots)
        self._key, self._level = key, DEFAULT_LEVEL
        self._tasks, self._stack = tasks, stack
        self._thread_bytes = thread_bytes
        self._local = SlotSealer(arena, key, self._level)
        self._thread = _ThreadHand(self._local)
        self._processes: list[_ProcessHand] = []
        self._listening: list[_ProcessHand] = []  # those and, while they start, perhaps more
        self._asked = 0
        self._starting = anyio.Lock()
        self._begun, self._beginning = False, anyio.CancelScope()
        self._files: dict[int, str] = {}
        self._next_file = 0

    async def start(self) -> None:
        """Start the processes now, for work that is known to be large."""
        async with self._starting:
            if not self._processes:
                await self._start()
        self._thread_bytes = 0

    def begin(self) -> None:
        """Have the processes started, without waiting; until they are there, a thread works.

        May be called again, also meanwhile.
        """
        if self._processes or self._begun:
            return
        self._begun, self._thread_bytes = True, sys.maxsize
        self._tasks.start_soon(self._begin)

    async def _begin(self) -> None:
        with self._beginning:  # until the pool's end, which would wait for ever for their listeners
            await self.start()

    async def hash(self, slot: int, chunks: Sequence[int]) -> bytes:
        """Return the ids, 32 bytes each, of chunks of the slot, given as for `seal`."""
        request, size = array("I", chunks).tobytes(), sum(chunks[1::2])
        if self._is_little(size, _LITTLE_HASHED):
            return (await self._thread.ask_little("hash", request, slot=slot)).payload
        hand = await self._hand(size // _HASHING)
        return (await hand.ask("hash", request, slot=slot)).payload

    async def seal(self, slot: int, chunks: Sequence[int]) -> Sequence[int]:
        """Seal some of the slot's chunks, given as start, length, start, length, … ascending.

        The sealed blobs then lie end to end from the slot's start (`arena.sealed`). Returns sealed
        length, plain length (0: not compressed), and so on, per blob.
        """
        assert len(chunks) <= 2 * MAX_CHUNKS
        request, size = array("I", chunks).tobytes(), sum(chunks[1::2])
        assert size <= SLOT_SIZE
        if self._is_little(size, _LITTLE_SEALED):
            reply = await self._thread.ask_little("seal", request, slot=slot)
        else:
            hand = await self._hand(size)
            reply = await hand.ask("seal", request, slot=slot)
        return array("I", reply.payload)

    async def hash_and_seal(self, slot: int, chunks: Sequence[int]) -> tuple[bytes, Sequence[int]]:
        """Do both at once, for chunks that are all thought to be new: one trip instead of two."""
        assert len(chunks) <= 2 * MAX_CHUNKS
        size = sum(chunks[1::2])
        assert size <= SLOT_SIZE
        hand = await self._hand(size)
        payload = (await hand.ask("both", array("I", chunks).tobytes(), slot=slot)).payload
        cut = len(chunks) // 2 * ID_SIZE
        return payload[:cut], array("I", payload[cut:])

    async def unseal(self, slot: int, pieces: bytes, file: int = NO_FILE) -> None:
        """Unseal blobs lying in the slot (`sealing.PIECE` records) into a file, or only prove them.

        Raises:
            IntegrityError: a blob is not what its id says.
            StoreFull: the file's disk has no room.
        """
        hand = await self._hand(SLOT_SIZE)
        self._judge(await hand.ask("unseal", pieces, slot=slot, file=file), file)

    async def unseal_bytes(self, sealed: bytes, pieces: bytes, file: int = NO_FILE) -> None:
        """Do the same for blobs that lie in `sealed`: those that no slot holds."""
        self._judge(await self._thread.unseal(sealed, file, pieces), file)

    def _judge(self, reply: Frame, file: int) -> None:
        if reply.kind == "damaged":
            raise IntegrityError(reply.fields["message"])
        if reply.kind == "failed":
            raise no_room(self._files[file], reply.fields["message"])

    @asynccontextmanager
    async def file(self, path: Path) -> AsyncIterator[int]:
        """Open an existing file in every worker, to unseal into, for the duration of the block."""
        number, self._next_file = self._next_file, self._next_file + 1
        self._local.open(number, str(path))
        async with self._starting:  # processes that are being started open it then, or here
            self._files[number] = str(path)
            for hand in self._processes:
                await hand.ask("open", b"", file=number, path=str(path))
        try:
            yield number
        finally:
            self._local.close(number)
            del self._files[number]
            with anyio.CancelScope(shield=True):
                for hand in self._processes:
                    await hand.ask("close", b"", file=number)

    def _is_little(self, size: int, most: int) -> bool:
        """Whether it is done before processes would have started, or one would have heard of it."""
        return self._thread_bytes > 0 and size <= most

    async def _hand(self, size: int) -> _Hand:
        self._asked += size
        if self._asked <= self._thread_bytes:
            return self._thread
        if not self._processes:
            await self.start()
        return min(self._processes, key=lambda hand: hand.load)

    async def _start(self) -> None:
        children = [
            await self._stack.enter_async_context(
                worker(SEALING, "hashing and sealing", self.arena)
            )
            for _ in range(_workers())
        ]
        secret = self._key.encrypt + self._key.mac_k + self._key.mac_r
        for child in children:
            await child.send("key", secret, level=self._level)
        hands = []
        for child in children:
            await child.receive()
            hand = _ProcessHand(child)
            self._listening.append(hand)
            self._tasks.start_soon(hand.listen)
            for number, path in self._files.items():
                await hand.ask("open", b"", file=number, path=path)
            hands.append(hand)
        self._processes = hands

    def end(self) -> None:
        """Listen to no process any more, and let go of contexts: nobody waits for an answer.

        Tasks and frames may refer to the pool in a circle, and a fifth of a megabyte would wait
        with them for the garbage collector, once for each run.
        """
        del self._local, self._thread
        self._beginning.cancel()
        for hand in self._listening:
            hand.end()


def no_room(path: str | Path, why: str) -> StoreFull:
    """Word that a restored file cannot be written."""
    return StoreFull(
        f"writing {path}: {why}",
        hint="Free some space there, or choose another scratch directory, and try again. "
        "Nothing live was touched.",
    )


def _workers() -> int:
    """Return how many processes to run: one per processor we may use, within reason."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)


def _worker_slots(workers: int) -> int:
    """Return one slot for each to work on, and one that waits for each two: they end in turn."""
    return workers + (workers + 1) // 2


@asynccontextmanager
async def sealing_pool(
    key: MasterKey, *, thread_bytes: int = _THREAD_BYTES
) -> AsyncIterator[SealingPool]:
    """Provide a pool and its arena for one operation; processes start after `thread_bytes`.

    On leaving, however that happens, the children have ended and the shared memory is gone.
    """
    arena = Arena.create(_CAPTURE_SLOTS + _worker_slots(_workers()))
    try:
        async with AsyncExitStack() as stack, task_group() as tasks:
            pool = SealingPool(arena, key, tasks, stack, thread_bytes)
            try:
                yield pool
            finally:
                pool.end()
    finally:
        arena.close()
