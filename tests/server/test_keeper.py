"""The engine's life: opened once, kept while calls need it, closed after them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mcp_backup.engine import Engine
from mcp_backup.errors import RepositoryMissing, WrongPassword
from mcp_backup.opening import initialise
from mcp_backup.server.keeper import EngineKeeper
from tests.server.conftest import Machine


async def test_calls_cancelled_with_the_server_end_before_the_engine_closes(
    machine: Machine,
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def opening() -> AsyncIterator[Engine]:
        try:
            async with machine.engine() as engine:
                yield engine
        finally:
            events.append("closed")

    keeper = EngineKeeper(opening)
    called = anyio.Event()

    async def call() -> None:
        await keeper.engine()
        called.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(10):  # as cleaning up takes a while
                    await anyio.lowlevel.checkpoint()
            events.append("ended")

    with anyio.CancelScope() as serving:
        async with keeper.running(), anyio.create_task_group() as calls:
            calls.start_soon(call)
            await called.wait()
            serving.cancel()
    assert events == ["ended", "closed"]


async def test_calls_at_once_share_one_engine(machine: Machine) -> None:
    keeper = EngineKeeper(machine.engine)
    engines: list[Engine] = []

    async def call() -> None:
        engines.append(await keeper.engine())

    async with keeper.running(), anyio.create_task_group() as calls:
        for _ in range(5):
            calls.start_soon(call)
    assert len(engines) == 5
    assert all(engine is engines[0] for engine in engines)


async def test_an_engine_that_could_not_be_opened_is_tried_again_when_asked_for(
    bare: Machine,
) -> None:
    keeper = EngineKeeper(bare.engine)
    (bare.root / "backups.key").write_text("a password")
    (bare.root / "backups").mkdir()
    async with keeper.running():
        with pytest.raises(RepositoryMissing):
            await keeper.engine()
        await initialise(bare.settings())
        await keeper.engine()


async def test_the_failure_told_is_the_latest(machine: Machine) -> None:
    keeper = EngineKeeper(machine.engine)
    (machine.root / "backups.key").write_text("not it")
    async with keeper.running():
        with pytest.raises(WrongPassword):
            await keeper.engine()
        (machine.root / "backups").rename(machine.root / "elsewhere")
        (machine.root / "backups").mkdir()
        with pytest.raises(RepositoryMissing):
            await keeper.engine()
