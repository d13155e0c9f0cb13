"""Opening, and what an open repository gives back."""

import os
from contextlib import suppress
from datetime import timedelta

import pytest

from mcp_backup.errors import (
    IntegrityError,
    RepositoryExists,
    RepositoryMissing,
    StoreUnavailable,
    UnsupportedFormat,
    WrongPassword,
)
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.config import Config, encode_config
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.key import CHEAP
from mcp_backup.format.tree import encode_tree
from mcp_backup.repository.keys import add_key, find_master_key, key_files
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.memory import MemoryStore
from mcp_backup.store.store import Store
from tests.doubles import Fault, FaultyStore, FrozenClock, How
from tests.repository.packing import (
    PASSWORD,
    make_pack,
    new_repository,
    save_backup,
    save_index,
    save_pack,
    save_snapshot,
    stored_file,
)


async def opened(store: Store, password: str = PASSWORD) -> Repository:
    return await open_repository(
        store, password, now=FrozenClock(), hostname="here", username="tester"
    )


async def test_what_was_created_opens_with_its_password() -> None:
    store = MemoryStore()
    created = await new_repository(store)
    repository = await opened(store)
    assert repository.config == created.config
    assert repository.config.version == 2
    assert repository.key == created.key


async def test_nothing_is_created_over_a_repository() -> None:
    store = MemoryStore()
    await new_repository(store)
    before = dict(store.contents)
    with pytest.raises(RepositoryExists):
        await new_repository(store)
    assert store.contents == before


async def test_snapshots_without_a_config_are_neither_opened_nor_created_over() -> None:
    store = MemoryStore()
    await save_backup(await new_repository(store), {"a": [b"x"]})
    del store.contents["config"]
    with pytest.raises(RepositoryExists):
        await new_repository(store)
    with pytest.raises(IntegrityError, match="config is missing"):
        await opened(store)


async def test_a_creation_that_failed_at_any_call_is_finished_by_the_next() -> None:
    dry = FaultyStore(MemoryStore())
    await new_repository(dry)
    for nth in range(1, len(dry.calls) + 1):
        for how in (How.BEFORE, How.AFTER):
            store = MemoryStore()
            with suppress(StoreUnavailable):
                await new_repository(FaultyStore(store, Fault("any", nth, how)))
            if "config" not in store.contents:
                await new_repository(store)
            assert (await opened(store)).config.version == 2
            assert len(await store.objects("keys/")) == 1


async def test_no_repository_is_said_to_be_missing() -> None:
    with pytest.raises(RepositoryMissing):
        await opened(MemoryStore())


async def test_a_wrong_password_opens_nothing() -> None:
    store = MemoryStore()
    await new_repository(store)
    with pytest.raises(WrongPassword, match="1 keys"):
        await opened(store, "battery staple")


async def test_a_second_key_opens_the_same_repository() -> None:
    store, clock = MemoryStore(), FrozenClock()
    repository = await new_repository(store, clock)
    clock.advance(timedelta(days=1))
    added = await add_key(
        store,
        repository.key,
        "second",
        created=clock(),
        username="other",
        hostname="there",
        work=CHEAP,
        random=os.urandom,
    )
    assert (await opened(store, "second")).key == repository.key
    listed = await key_files(store)
    assert [key.username for key in listed] == ["tester", "other"]
    assert listed[1].id == added
    assert listed[1].created == clock()


async def test_a_damaged_key_file_does_no_harm_while_another_opens() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    store.contents[f"keys/{'0' * 64}"] = b"not a key"  # listed first
    assert await find_master_key(store, PASSWORD) == repository.key
    with pytest.raises(IntegrityError, match="keys/000"):
        await opened(store, "battery staple")


async def test_versions_we_do_not_know_are_refused() -> None:
    for version in (1, 3):
        store = MemoryStore()
        repository = await new_repository(store)
        config = Config(version, repository.config.id, repository.config.chunker_polynomial)
        store.contents["config"] = Sealer(repository.key).seal(encode_config(config))
        with pytest.raises(UnsupportedFormat, match=f"version {version}"):
            await opened(store)


async def test_a_backup_is_read_back_from_its_snapshot() -> None:
    store = MemoryStore()
    saved = await save_backup(await new_repository(store), {"a": [b"one" * 100, b"two"], "b": []})
    repository = await opened(store)
    snapshots = await repository.snapshots()
    (root,) = await repository.load_tree(snapshots[saved].tree)
    assert root.subtree is not None
    a, b = await repository.load_tree(root.subtree)
    assert a.content is not None
    chunks = [await repository.load_blob(BlobKind.DATA, blob) for blob in a.content]
    assert chunks == [b"one" * 100, b"two"]
    assert b.content == ()


async def test_snapshots_are_loaded_once_and_seen_when_others_add_or_forget_them() -> None:
    store = FaultyStore(MemoryStore())
    ours = await new_repository(store)
    others = await opened(store)
    tree = BlobId(digest(encode_tree([])))
    first, second = await save_snapshot(others, tree), await save_snapshot(others, tree)
    assert set(await ours.snapshots()) == {first, second}
    others.exclusive = True
    await others.forget(first)
    third = await save_snapshot(others, tree)
    store.calls.clear()
    assert set(await ours.snapshots()) == {second, third}
    assert store.calls == [("objects", "snapshots/"), ("get", f"snapshots/{third.hex()}")]


async def test_a_snapshot_forgotten_while_they_are_listed_is_left_out() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    first = await save_snapshot(repository, BlobId(bytes(32)))
    second = await save_snapshot(repository, BlobId(bytes(32)))

    class Vanishing(FaultyStore):
        async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            if name.startswith("snapshots/"):
                store.contents.pop(f"snapshots/{first.hex()}", None)
            return await super().get(name, offset, length)

    assert set(await (await opened(Vanishing(store))).snapshots()) == {second}


async def test_forgetting_asks_for_an_exclusive_lock() -> None:
    repository = await new_repository(MemoryStore())
    saved = await save_snapshot(repository, BlobId(bytes(32)))
    with pytest.raises(AssertionError):
        await repository.forget(saved)
    assert saved in await repository.snapshots()


async def test_index_files_are_read_once_and_new_ones_on_refresh() -> None:
    store = FaultyStore(MemoryStore())
    repository = await new_repository(store)
    await save_index(repository, await save_pack(repository, BlobKind.DATA, [b"one"]))
    assert len(await repository.load_index()) == 1
    await save_index(repository, await save_pack(repository, BlobKind.DATA, [b"two"]))
    assert len(await repository.load_index()) == 1
    store.calls.clear()
    assert len(await repository.load_index(refresh=True)) == 2
    assert [verb for verb, _ in store.calls] == ["objects", "get"]


async def test_index_files_that_vanished_take_their_blobs_along() -> None:
    repository = await new_repository(MemoryStore())
    listing = await save_pack(repository, BlobKind.DATA, [b"one"])
    name = (await save_index(repository, listing)).hex()
    await save_index(repository, await save_pack(repository, BlobKind.DATA, [b"two"]))
    await repository.load_index()
    await repository.store.delete(f"index/{name}")
    index = await repository.load_index(refresh=True)
    assert (BlobKind.DATA, BlobId(digest(b"one"))) not in index
    assert (BlobKind.DATA, BlobId(digest(b"two"))) in index


async def test_our_own_index_file_is_not_read_again() -> None:
    store = FaultyStore(MemoryStore())
    repository = await new_repository(store)
    index = await repository.load_index()
    listing = await save_pack(repository, BlobKind.DATA, [b"one"])
    repository.index_written(await save_index(repository, listing), [listing])
    store.calls.clear()
    assert await repository.load_index(refresh=True) is index
    assert index.find(BlobKind.DATA, BlobId(digest(b"one"))) is not None
    assert [verb for verb, _ in store.calls] == ["objects"]


async def test_a_blob_written_by_another_since_the_index_was_read_is_found() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await repository.load_index()
    await save_backup(await opened(store), {"a": [b"late"]})
    assert await repository.load_blob(BlobKind.DATA, BlobId(digest(b"late"))) == b"late"


async def test_a_blob_damaged_in_one_pack_is_taken_from_another() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    first = await save_pack(repository, BlobKind.DATA, [b"twice"])
    second = await save_pack(repository, BlobKind.DATA, [b"twice"])
    await save_index(repository, first, second)
    blob = BlobId(digest(b"twice"))
    place = (await repository.load_index()).find(BlobKind.DATA, blob)
    assert place is not None
    del store.contents[f"data/{place.pack.hex()[:2]}/{place.pack.hex()}"]
    assert await repository.load_blob(BlobKind.DATA, blob) == b"twice"


async def test_a_large_tree_and_a_large_index_are_the_same_as_small_ones() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    chunks = [n.to_bytes(4, "big") for n in range(5000)]
    await save_backup(repository, {"big": chunks})
    tree = encode_tree([stored_file("big", chunks)])
    assert len(tree) > 64 << 10
    (node,) = await (await opened(store)).load_tree(BlobId(digest(tree)))
    assert node == stored_file("big", chunks)


async def test_a_listing_made_twice_is_the_same_pack() -> None:
    repository = await new_repository(MemoryStore())
    data, listing = make_pack(repository, BlobKind.DATA, [b"one", b"two"])
    assert listing.pack == digest(data)
    await save_index(repository, listing)
    await save_index(repository, listing, await save_pack(repository, BlobKind.DATA, [b"three"]))
    assert len(await repository.load_index()) == 3


async def test_the_index_of_one_repository_is_not_taken_for_anothers() -> None:
    first, second = MemoryStore(), MemoryStore()
    await save_backup(await new_repository(first), {"a": [b"x"]})
    await new_repository(second)
    name = next(iter(await first.objects("index/")))
    second.contents[name] = first.contents[name]
    with pytest.raises(IntegrityError, match=name):
        await (await opened(second)).load_index()
