"""Packs examined by a pool: the same findings as in a thread, wherever the damage is."""

import os
from collections.abc import Sequence

import pytest

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, PackId, digest
from mcp_backup.format.pack import PackEntry
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.pack_examining import in_pool, in_threads
from mcp_backup.repository.repository import Repository
from mcp_backup.store.memory import MemoryStore
from mcp_backup.verbs import CheckFinding
from tests.repository.packing import make_pack
from tests.repository.pooling import PROCESSES, THREAD, Bench, bench

BLOBS = [b"a few words " * 90, os.urandom(700_000), os.urandom(1_500_000), b"x", b"y" * 5_000_000]
LARGE = [*BLOBS, os.urandom(SLOT_SIZE + (1 << 20)), b"and one after it"]


async def examined(
    it: Bench, pack: PackId, entries: Sequence[PackEntry], data: bytes
) -> list[CheckFinding]:
    """What the pool finds, which has to be what a thread finds."""
    assert isinstance(it.repository.store, MemoryStore)
    it.repository.store.contents[pack_name(pack)] = data
    found = list(await in_pool(it.repository, it.pool)(pack, entries))
    assert found == list(await in_threads(it.repository)(pack, entries))
    return found


def packed(repository: Repository, blobs: Sequence[bytes]) -> tuple[bytes, PackId, list[PackEntry]]:
    data, listing = make_pack(repository, BlobKind.DATA, blobs)
    return data, listing.pack, list(listing.entries)


@pytest.mark.parametrize("thread_bytes", [THREAD, PROCESSES], ids=["thread", "processes"])
@pytest.mark.parametrize("blobs", [BLOBS, LARGE], ids=["small", "larger than a slot"])
async def test_damage_is_found_by_a_pool_as_by_a_thread(
    thread_bytes: int, blobs: list[bytes]
) -> None:
    async with bench(thread_bytes) as it:
        data, pack, entries = packed(it.repository, blobs)
        assert await examined(it, pack, entries, data) == []
        for entry in entries:
            for at in (entry.offset, entry.offset + entry.length - 1):
                damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                names = [finding.subject for finding in await examined(it, pack, entries, damaged)]
                assert names == [pack_name(pack), f"data blob {entry.id.hex()}"]


async def test_what_a_slot_held_before_proves_nothing() -> None:
    async with bench() as it:
        data, pack, entries = packed(it.repository, [os.urandom(100_000), os.urandom(300_000)])
        for _ in range(it.pool.arena.slots):
            assert await examined(it, pack, entries, data) == []
        found = await examined(it, pack, entries, data[: entries[1].offset])
        assert f"data blob {entries[1].id.hex()}" in [finding.subject for finding in found]
        assert await examined(it, pack, entries, b"") != []


async def test_a_header_that_disagrees_with_the_index_is_found_by_a_pool_too() -> None:
    async with bench() as it:
        data, pack, entries = packed(it.repository, [b"one", b"two"])
        lying = [entry._replace(id=BlobId(digest(b"?"))) for entry in entries]
        codes = [finding.code for finding in await examined(it, pack, lying, data)]
        assert codes == ["damaged-index", "damaged-blob", "damaged-blob"]
