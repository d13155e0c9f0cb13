"""The stand-ins do what they say, since other tests believe them."""

import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from mcp_backup.errors import ObjectMissing, StoreFull, StoreUnavailable
from mcp_backup.store.local import LocalStore
from mcp_backup.store.memory import MemoryStore
from tests.doubles import FOREVER, Fault, FaultyStore, FrozenClock, How, full
from tests.store.contract import StoreContract, named


class TestFaultyStoreWithoutFaults(StoreContract):
    @pytest.fixture
    def store(self) -> FaultyStore:
        return FaultyStore(MemoryStore())


async def test_the_nth_call_of_a_verb_fails_and_nothing_was_done() -> None:
    store = FaultyStore(MemoryStore(), Fault("put", 2))
    await store.put(named(b"1"), b"1")
    with pytest.raises(StoreUnavailable):
        await store.put(named(b"2"), b"2")
    await store.put(named(b"3"), b"3")
    assert await store.store.objects("") == dict.fromkeys(sorted([named(b"1"), named(b"3")]), 1)
    assert store.calls == [("put", named(data)) for data in (b"1", b"2", b"3")]


async def test_a_lost_answer_is_a_failure_of_what_was_done() -> None:
    store = FaultyStore(MemoryStore(), Fault("put", 1, How.AFTER))
    with pytest.raises(StoreUnavailable):
        await store.put("config", b"x")
    assert await store.get("config") == b"x"


async def test_a_fault_may_last_and_may_be_meant_for_some_names_only() -> None:
    store = FaultyStore(
        MemoryStore(), Fault("any", 2, times=FOREVER, error=full(), under="snapshots/")
    )
    await store.put("config", b"x")
    await store.put(named(b"1"), b"1")
    for _ in range(3):
        with pytest.raises(StoreFull):
            await store.get(named(b"1"))
    assert await store.get("config") == b"x"


async def test_a_damaged_answer_differs_by_one_byte_or_one_bit() -> None:
    store = FaultyStore(
        MemoryStore(), Fault("get", 1, How.TRUNCATE), Fault("get", 2, How.LIE), Fault("get", 9)
    )
    await store.put("config", b"abcde")
    assert await store.get("config") == b"abcd"
    assert await store.get("config") == b"absde"
    assert await store.get("config") == b"abcde"


@pytest.mark.parametrize(("how", "held"), [("KILL", False), ("KILL_AFTER", True)])
async def test_the_process_dies_before_or_after_the_call(
    tmp_path: Path, how: str, held: bool
) -> None:
    program = (
        "import anyio, sys; from pathlib import Path;"
        "from mcp_backup.store.local import LocalStore; from tests.doubles import *;"
        f"store = FaultyStore(LocalStore(Path(sys.argv[1])), Fault('any', 1, How.{how}));"
        "anyio.run(store.put, 'config', b'x')"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path])
    assert done.returncode == -9
    if held:
        assert await LocalStore(tmp_path).get("config") == b"x"
    else:
        with pytest.raises(ObjectMissing):
            await LocalStore(tmp_path).get("config")


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = FrozenClock()
    before = clock()
    assert clock() == before
    assert before.tzinfo is UTC
    clock.advance(timedelta(hours=2))
    assert clock() - before == timedelta(hours=2)
