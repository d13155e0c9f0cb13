"""Repositories in memory with a pool beside them, so that tests work on slots as a backup does."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from random import Random

import anyio

from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import ID_SIZE, BlobId
from mcp_backup.repository.pool import SEALING, SealingPool, sealing_pool
from mcp_backup.repository.repository import Repository
from mcp_backup.repository.writer import Writer, writing
from mcp_backup.store.memory import MemoryStore
from mcp_backup.workers import forking
from tests.repository.packing import new_repository

THREAD, PROCESSES = 1 << 60, 0  # bytes before processes start: never, and at once
SPAWNED = -1  # at once too, each an interpreter of its own


@dataclass(frozen=True)
class Bench:
    """A repository, and the pool that works for it."""

    repository: Repository
    pool: SealingPool

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Writer]:
        """A writer whose blobs are durable when the block has ended."""
        async with writing(self.repository, self.pool) as writer:
            yield writer
            await writer.flush()

    async def save(self, writer: Writer, chunks: Sequence[bytes]) -> list[BlobId]:
        """Save chunks through a slot of their own."""
        slot = await self.pool.slots.take()
        try:
            whole = b"".join(chunks)
            self.pool.arena.content(slot)[: len(whole)] = whole
            return split(await writer.save_slot(slot, [len(chunk) for chunk in chunks]))
        finally:
            self.pool.slots.give_back(slot)

    async def load(self, blobs: Sequence[BlobId]) -> bytes:
        """The blobs' plaintexts, end to end, by the repository's own slow way."""
        return b"".join([await self.repository.load_blob(BlobKind.DATA, blob) for blob in blobs])

    async def save_all(self, parts: Sequence[Sequence[bytes]]) -> list[list[BlobId]]:
        """Save several slots side by side with one writer, and flush it."""
        saved: dict[int, list[BlobId]] = {}

        async def save(number: int) -> None:
            saved[number] = await self.save(writer, parts[number])

        async with self.writer() as writer, anyio.create_task_group() as tasks:
            for number in range(len(parts)):
                tasks.start_soon(save, number)
        return [saved[number] for number in range(len(parts))]


@asynccontextmanager
async def bench(thread_bytes: int = THREAD) -> AsyncIterator[Bench]:
    repository = await new_repository(MemoryStore())
    forked = nullcontext() if thread_bytes == SPAWNED else forking(SEALING)
    async with forked, sealing_pool(repository.key, thread_bytes=thread_bytes) as pool:
        yield Bench(repository, pool)


def split(ids: bytes) -> list[BlobId]:
    return [BlobId(ids[at : at + ID_SIZE]) for at in range(0, len(ids), ID_SIZE)]


def noise(size: int, seed: int | None = None) -> bytes:
    """Bytes that nothing compresses: any, or always the same ones."""
    return os.urandom(size) if seed is None else Random(seed).randbytes(size)  # noqa: S311


def words(size: int, seed: int) -> bytes:
    """Bytes that compress, about as a database does."""
    random = Random(seed)  # noqa: S311 - the same ones every time is the point
    line = b" ".join(random.randbytes(4).hex().encode() for _ in range(200))
    return (line * (size // len(line) + 1))[:size]
