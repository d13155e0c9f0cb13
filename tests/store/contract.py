"""The promises of `mcp_backup.store.store.Store`, each as a test that every store has to pass.

A store's test module subclasses `StoreContract` and provides the fixture `store`.
"""

from hashlib import sha256

import anyio
import pytest

from mcp_backup.errors import IntegrityError, ObjectMissing, UsageError
from mcp_backup.store.layout import is_object_name
from mcp_backup.store.store import Store

BAD_NAMES = [
    "",
    "/",
    ".",
    "..",
    "configs",
    "config/",
    "/etc/passwd",
    "../config",
    "keys/../config",
    "keys/" + "a" * 63,
    "keys/" + "a" * 65,
    "keys/" + "A" * 64,
    "keys/" + "a" * 64 + "\n",
    "keys/" + "a" * 64 + "-tmp-0123456789abcdef",
    "keys//" + "a" * 64,
    "other/" + "a" * 64,
    "data/" + "a" * 64,
    "data/ab/" + "a" * 64,
    "data/aa/../aa/" + "a" * 64,
    "data\\aa\\" + "a" * 64,
    "data/aa/" + "a" * 64 + "\0",
]


def named(data: bytes, kind: str = "snapshots") -> str:
    """Return the name that `data` has as an object of `kind`."""
    digits = sha256(data).hexdigest()
    return f"data/{digits[:2]}/{digits}" if kind == "data" else f"{kind}/{digits}"


class StoreContract:
    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000], ids=len)
    @pytest.mark.parametrize("kind", ["keys", "locks", "snapshots", "index", "data"])
    async def test_what_was_put_is_got_back(self, store: Store, kind: str, data: bytes) -> None:
        await store.put(named(data, kind), data)
        assert await store.get(named(data, kind)) == data
        assert await store.size(named(data, kind)) == len(data)

    async def test_any_kind_of_buffer_is_stored_and_not_kept(self, store: Store) -> None:
        buffer = bytearray(b"first")
        await store.put("config", memoryview(buffer))
        await store.put(named(b"second"), bytearray(b"second"))
        buffer[:] = b"XXXXX"
        assert await store.get("config") == b"first"
        assert await store.get(named(b"second")) == b"second"

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [
            (0, 0, b""),
            (0, 3, b"abc"),
            (2, 4, b"cdef"),
            (6, 4, b"ghij"),
            (4, None, b"efghij"),
            (10, None, b""),
            (10, 0, b""),
        ],
    )
    async def test_a_range_is_exactly_what_was_asked_for(
        self, store: Store, offset: int, length: int | None, expected: bytes
    ) -> None:
        await store.put("config", b"abcdefghij")
        assert await store.get("config", offset, length) == expected
        room = bytearray(len(expected))
        await store.get_into("config", offset, memoryview(room))
        assert room == expected

    @pytest.mark.parametrize(("offset", "length"), [(0, 11), (8, 3), (11, 0), (11, None), (99, 1)])
    async def test_a_range_past_the_end_is_refused_not_shortened(
        self, store: Store, offset: int, length: int | None
    ) -> None:
        await store.put("config", b"abcdefghij")
        with pytest.raises(IntegrityError, match="get config: "):
            await store.get("config", offset, length)
        if length:
            with pytest.raises(IntegrityError, match="get config: "):
                await store.get_into("config", offset, memoryview(bytearray(length)))

    async def test_putting_the_same_again_succeeds_and_changes_nothing(self, store: Store) -> None:
        await store.put("config", b"same")
        await store.put("config", b"same")
        assert await store.get("config") == b"same"
        assert await store.objects("") == {"config": 4}

    @pytest.mark.parametrize("other", [b"Same", b"sam", b"same!", b""])
    async def test_other_bytes_under_a_taken_name_are_refused(
        self, store: Store, other: bytes
    ) -> None:
        await store.put("config", b"same")
        with pytest.raises(IntegrityError, match="other bytes"):
            await store.put("config", other)
        assert await store.get("config") == b"same"

    async def test_one_of_many_puts_at_once_wins_and_the_rest_are_told(self, store: Store) -> None:
        outcomes: list[bytes | None] = []

        async def put(data: bytes) -> None:
            try:
                await store.put("config", data)
                outcomes.append(data)
            except IntegrityError:
                outcomes.append(None)

        async with anyio.create_task_group() as tasks:
            for number in range(16):
                tasks.start_soon(put, b"%d" % number)
        won = [data for data in outcomes if data is not None]
        assert len(outcomes) == 16
        assert won == [await store.get("config")]

    async def test_a_missing_object_is_called_missing(self, store: Store) -> None:
        await store.put("config", b"x")  # so that there is a store at all
        for name in (named(b"never"), named(b"never", "data")):
            with pytest.raises(ObjectMissing, match=name):
                await store.get(name)
            with pytest.raises(ObjectMissing, match=name):
                await store.get_into(name, 0, memoryview(bytearray(1)))
            with pytest.raises(ObjectMissing, match=name):
                await store.size(name)

    async def test_listing_gives_names_and_sizes_below_the_prefix(self, store: Store) -> None:
        held = {named(data, kind): data for data in (b"1", b"22") for kind in ("index", "data")}
        for name, data in held.items():
            await store.put(name, data)
        await store.put("config", b"333")
        sizes = {name: len(data) for name, data in held.items()}
        assert await store.objects("") == {"config": 3, **sizes}
        assert list(await store.objects("")) == sorted({"config": 3, **sizes})
        for prefix in ("index/", "data/", named(b"1", "data")[:8]):
            expected = {name: size for name, size in sizes.items() if name.startswith(prefix)}
            assert await store.objects(prefix) == expected
            assert sorted(await store.names(prefix)) == sorted(expected)
        assert await store.objects("locks/") == {}

    async def test_a_deleted_object_is_gone_and_deleting_it_again_succeeds(
        self, store: Store
    ) -> None:
        await store.put(named(b"a", "data"), b"a")
        await store.put(named(b"b", "data"), b"b")
        await store.delete(named(b"a", "data"))
        await store.delete(named(b"a", "data"))
        await store.delete(named(b"never", "locks"))
        assert await store.objects("") == {named(b"b", "data"): 1}
        with pytest.raises(ObjectMissing):
            await store.get(named(b"a", "data"))
        await store.put(named(b"a", "data"), b"a")
        assert await store.get(named(b"a", "data")) == b"a"

    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_a_name_outside_the_layout_is_refused_by_every_call(
        self, store: Store, name: str
    ) -> None:
        assert not is_object_name(name)
        for call in (store.get, store.size, store.delete):
            with pytest.raises(UsageError):
                await call(name)
        with pytest.raises(UsageError):
            await store.put(name, b"x")
        assert await store.objects("") == {}

    @pytest.mark.parametrize(
        "prefix", ["/", "data", "data/a/", "data/../", "data/aa", "config", "../", "keys/../"]
    )
    async def test_a_prefix_that_is_no_directory_of_the_layout_is_refused(
        self, store: Store, prefix: str
    ) -> None:
        with pytest.raises(UsageError):
            await store.objects(prefix)

    async def test_a_cancelled_put_leaves_the_whole_object_or_none(self, store: Store) -> None:
        data = b"whole" * 100_000
        for kind in ("keys", "locks", "snapshots", "index", "data"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.put, named(data, kind), data)
                await anyio.lowlevel.checkpoint()  # it has begun
                tasks.cancel_scope.cancel()
        for name in await store.objects(""):
            assert await store.get(name) == data

    async def test_the_location_is_told_without_asking_the_store(self, store: Store) -> None:
        assert store.location
