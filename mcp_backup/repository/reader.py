"""The reader: from a list of blob ids back to a file, in bulk and in any order.

Blobs are fetched as they lie in packs, neighbours in one read, and every worker writes what it
unseals straight to its place in the file; so the file is complete when all pieces are, and each
byte of it has been proven by its blob's id on the way. What a local file has, need not be fetched.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio import to_thread
from msgspec import Struct

from mcp_backup.arena import SLACK, SLOT_SIZE
from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, PackId, short
from mcp_backup.page_cache import SharedWriter
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.repository import local_copy
from mcp_backup.repository.blob_index import BlobIndex
from mcp_backup.repository.pool import SealingPool, no_room
from mcp_backup.repository.repository import Repository
from mcp_backup.repository.sealing import NO_FILE, PIECE
from mcp_backup.store.filesystems import is_own_disk
from mcp_backup.tasks import task_group

_READ = SLOT_SIZE + SLACK  # the largest read: what a slot takes
_MANY = 4_000  # chunks, 64 MiB of the usual ones: worth starting processes for, and preparing
_GAP = 64 << 10  # reading over a gap this small is cheaper than a second request
_ENVELOPE = 32
_SAMPLES = 128  # chunks of a local file that are looked at before it is read
_RUN = 256  # chunks copied by one task: 4 MiB of the usual ones
_COPIES = 2  # tasks at once; hashing and reading let go of the interpreter


class _Place(NamedTuple):
    """Where a blob lies, and where in the file its plaintext goes. Sorts in reading order.

    A tuple, since a large file has a million, and to compare tuples calls nothing of ours.
    """

    pack: PackId
    offset: int
    length: int
    plain_length: int
    position: int
    blob: BlobId


class _Read(Struct, frozen=True):
    """One request to the store, and the blobs in it, of `plain` bytes together."""

    pack: PackId
    offset: int
    length: int
    plain: int
    places: Sequence[_Place]


class Goal(Struct, frozen=True):
    """The file to be written.

    `announced` is how many bytes it should be: when the content is not as many, nothing is
    written. `local` is another file, which may hold chunks of it at the same places.
    """

    path: Path
    listener: Listener = nobody
    announced: int | None = None
    local: Path | None = None


def file_size(index: BlobIndex, content: Sequence[BlobId]) -> int:
    """Return the size in bytes of a file with that content, by the index.

    Raises:
        IntegrityError: a blob is not in the index.
    """
    return sum(_plain(place) for place in _places(index, content))


async def stage_file(
    repository: Repository,
    pool: SealingPool,
    content: Sequence[BlobId],
    path: Path,
    listener: Listener = nobody,
) -> int:
    """Write the content's bytes to `path`, all of them from the repository; see `fill_file`."""
    return await fill_file(repository, pool, content, Goal(path, listener))


async def fill_file(
    repository: Repository, pool: SealingPool, content: Sequence[BlobId], goal: Goal
) -> int:
    """Write the content's bytes to the goal's file, an existing empty one; return their number.

    Chunks that the goal's local file has, are taken from there (`local_copy`).
    Not made durable here. A cancel or failure leaves a partial file, which the caller discards.

    Raises:
        IntegrityError: a blob is missing, damaged, or not what its id says.
        StoreFull: no room at `path`.
    """
    if goal.local is None and len(content) >= _MANY:
        pool.begin()  # while the blobs are looked up
    index = await repository.load_index()
    places = list(_places(index, content))
    total = sum(map(_plain, places))
    if goal.announced is not None and total != goal.announced:
        return total
    if len(places) >= _MANY:
        await to_thread.run_sync(_lengthen, goal.path, total)
    if goal.local is not None:
        places = await _not_local(places, goal, goal.local)
    places.sort()
    if places:
        async with pool.file(goal.path) as file:
            progress = (file, goal.path.name, goal.listener)
            await _fetch_all(repository, pool, places, progress, total)
    return total


def _lengthen(path: Path, size: int) -> None:
    """Make a file as long as it will be, where pages of it can be made ready (`page_cache`)."""
    if not is_own_disk(path.parent):
        return
    try:
        os.truncate(path, size)
    except OSError as error:
        raise no_room(path, error.strerror or str(error)) from error


async def _not_local(places: list[_Place], goal: Goal, local: Path) -> list[_Place]:
    """Copy what `local` has; return the places that are left, in no order."""
    samples = list(map(_chunk, places[:: max(1, len(places) // _SAMPLES)]))
    if not await to_thread.run_sync(local_copy.promising, local, samples):
        return places
    total, done, left = sum(map(_plain, places)), 0, list[_Place]()
    room, shared = anyio.Semaphore(_COPIES, fast_acquire=True), SharedWriter()

    async def copy(run: Sequence[_Place]) -> None:
        nonlocal done
        try:
            chunks = list(map(_chunk, run))
            taken = await to_thread.run_sync(local_copy.take, local, chunks, goal.path, shared)
        except OSError as error:
            raise no_room(goal.path, error.strerror or str(error)) from error
        finally:
            room.release()
        left.extend(place for place in run if place.position not in taken)
        done += sum(chunk.length for chunk in chunks if chunk.position in taken)
        await goal.listener(Progress("read", goal.path.name, done, total))

    async with task_group() as tasks:
        for start in range(0, len(places), _RUN):
            await room.acquire()
            tasks.start_soon(copy, places[start : start + _RUN])
    return left


async def prove_blobs(
    repository: Repository,
    pool: SealingPool,
    content: Sequence[BlobId],
    subject: str,
    listener: Listener = nobody,
) -> int:
    """Read blobs back from the store and prove each by its id; return their plain bytes.

    Raises:
        IntegrityError: a blob is missing, damaged, or not what its id says.
    """
    index = await repository.load_index()
    places = sorted(_places(index, dict.fromkeys(content)))
    return await _fetch_all(repository, pool, places, (NO_FILE, subject, listener))


async def _fetch_all(
    repository: Repository,
    pool: SealingPool,
    places: Sequence[_Place],
    goal: tuple[int, str, Listener],
    whole: int = 0,
) -> int:
    """Fetch and unseal `places`, in reading order, into the goal's file if it has one.

    Returns their plain bytes; of `whole` bytes, the others are done.
    """
    file, subject, listener = goal
    size = sum(map(_plain, places))
    total, done = whole or size, max(0, whole - size)
    room = anyio.Semaphore(pool.arena.slots, fast_acquire=True)

    async def fetch(read: _Read) -> None:
        nonlocal done
        try:
            await _unseal(repository, pool, file, read)
        finally:
            room.release()
        done += read.plain
        await listener(Progress("read", subject, done, total))

    async with task_group() as tasks:
        for read in _reads(places):
            await room.acquire()
            tasks.start_soon(fetch, read)
    return size


def _plain(place: _Place) -> int:
    return place.plain_length or place.length - _ENVELOPE


def _chunk(place: _Place) -> local_copy.Chunk:
    return local_copy.Chunk(place.position, _plain(place), place.blob)


def _places(index: BlobIndex, content: Collection[BlobId]) -> Iterator[_Place]:
    position = 0
    for blob, found in index.find_each(BlobKind.DATA, content):
        if found is None:
            raise IntegrityError(
                f"blob {short(blob)} is in no index",
                hint="Run `mcp-backup check` to see what is affected, and use an older backup.",
            )
        pack, offset, length, plain_length = found
        yield _Place(pack, offset, length, plain_length, position, blob)
        position += plain_length or length - _ENVELOPE


def _reads(places: Sequence[_Place]) -> Iterator[_Read]:
    """Join neighbours into reads that fit a slot; a larger blob is a read of its own."""
    batch: list[_Place] = []
    for place in places:
        if batch:
            first, end = batch[0], batch[-1].offset + batch[-1].length
            fits = place.offset + place.length - first.offset <= _READ
            if place.pack != first.pack or place.offset > end + _GAP or not fits:
                yield _read(batch)
                batch = []
        batch.append(place)
    if batch:
        yield _read(batch)


def _read(batch: list[_Place]) -> _Read:
    offset = batch[0].offset
    length = batch[-1].offset + batch[-1].length - offset
    return _Read(batch[0].pack, offset, length, sum(map(_plain, batch)), batch)


async def _unseal(repository: Repository, pool: SealingPool, file: int, read: _Read) -> None:
    name = f"data/{read.pack.hex()[:2]}/{read.pack.hex()}"
    slot = await pool.slots.take()
    try:
        pieces = b"".join(
            PIECE.pack(p.offset - read.offset, p.length, p.plain_length, p.position, p.blob)
            for p in read.places
        )
        if read.length > _READ:
            data = await repository.store.get(name, read.offset, read.length)
            await pool.unseal_bytes(data, pieces, file)
        else:
            room = pool.arena.sealed(slot)[: read.length]
            await repository.store.get_into(name, read.offset, room)
            await pool.unseal(slot, pieces, file)
    except IntegrityError as error:
        raise IntegrityError(
            f"{name}: {error}",
            hint="Run `mcp-backup check --level data` to see what is affected, and use an older "
            "backup. Nothing live was touched.",
        ) from error
    finally:
        pool.slots.give_back(slot)
