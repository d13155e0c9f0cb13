import logging
from datetime import timedelta

import pytest

from mcp_backup.errors import (
    BackupError,
    IntegrityError,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from mcp_backup.store.memory import MemoryStore
from mcp_backup.store.retry import RetryingStore
from tests.doubles import FOREVER, Fault, FaultyStore, How, Verb
from tests.store.contract import StoreContract, named

VERBS: list[Verb] = ["put", "get", "size", "objects", "delete"]


class Naps:
    """Remembers how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


def retrying(naps: Naps, *faults: Fault) -> tuple[RetryingStore, FaultyStore]:
    faulty = FaultyStore(MemoryStore(), *faults)
    return RetryingStore(faulty, 3, timedelta(seconds=1), naps), faulty


async def ask(store: RetryingStore, verb: Verb) -> None:
    match verb:
        case "put":
            await store.put("config", b"x")
        case "get":
            await store.get("config")
        case "size":
            await store.size("config")
        case "objects":
            await store.objects("")
        case "delete":
            await store.delete("config")


class TestRetryingStore(StoreContract):
    @pytest.fixture
    def store(self) -> RetryingStore:
        return retrying(Naps())[0]


@pytest.mark.parametrize("verb", VERBS)
async def test_what_passes_by_itself_is_tried_again_after_growing_waits(
    verb: Verb, caplog: pytest.LogCaptureFixture
) -> None:
    naps = Naps()
    store, faulty = retrying(naps, Fault(verb, 1, times=2))
    await faulty.store.put("config", b"x")
    with caplog.at_level(logging.WARNING):
        await ask(store, verb)
    assert naps.taken == [1.0, 2.0]
    assert len(faulty.calls) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@pytest.mark.parametrize("verb", VERBS)
async def test_after_the_last_try_the_store_is_called_unavailable(verb: Verb) -> None:
    naps = Naps()
    store, faulty = retrying(naps, Fault(verb, 1, times=FOREVER))
    await faulty.store.put("config", b"x")
    with pytest.raises(StoreUnavailable):
        await ask(store, verb)
    assert len(faulty.calls) == 3


@pytest.mark.parametrize(
    "error",
    [
        StoreFull("full"),
        StoreDenied("denied"),
        ObjectMissing("config", "here"),
        IntegrityError("other bytes"),
    ],
    ids=lambda error: error.code,
)
async def test_what_does_not_pass_is_told_at_once(error: BackupError) -> None:
    naps = Naps()
    store, faulty = retrying(naps, Fault("any", 1, error=error))
    with pytest.raises(type(error)):
        await store.get("config")
    assert naps.taken == []
    assert len(faulty.calls) == 1


async def test_a_put_whose_answer_was_lost_succeeds_at_the_second_try() -> None:
    store, faulty = retrying(Naps(), Fault("put", 1, How.AFTER))
    await store.put(named(b"data"), b"data")
    assert faulty.calls == [("put", named(b"data"))] * 2
    assert await store.objects("") == {named(b"data"): 4}


async def test_a_delete_whose_answer_was_lost_succeeds_at_the_second_try() -> None:
    store, faulty = retrying(Naps(), Fault("delete", 1, How.AFTER))
    await faulty.store.put("config", b"x")
    await store.delete("config")
    assert await store.objects("") == {}
