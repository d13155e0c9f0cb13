"""Every verb ends soon when it is cancelled, wherever it waits, and leaves nothing behind."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from mcp_backup.errors import BackupError
from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import CreateRequest
from tests.doubles import FOREVER, Fault, FaultyStore, How
from tests.hostile.forging import everything
from tests.system import System, make_system

SOON = 20.0  # seconds; it takes less than one on a machine that is not busy


@pytest.fixture
async def system(tmp_path: Path) -> System:
    made = await make_system(tmp_path / "live", rows=3)
    async with made.engine() as engine:
        await engine.create(CreateRequest(verify=False))
    return made


async def test_a_cancel_is_heeded_while_the_store_does_not_answer(system: System) -> None:
    """The store hangs in the middle of each verb, and never answers."""
    cancelled = []
    out = system.root / "out"
    out.mkdir()
    async with system.engine() as calm:
        names = ["create", *(name for name, _ in everything(calm, "latest", out))]
    for name in names:
        store = FaultyStore(LocalStore(system.repository))
        with anyio.fail_after(SOON), suppress(BackupError):
            async with system.engine(store=store) as engine:
                store.begin(Fault("get", 1, How.HANG, FOREVER))
                with anyio.move_on_after(0.5) as scope:
                    verbs = dict(everything(engine, "latest", out))
                    verbs["create"] = partial(engine.create, CreateRequest())
                    await verbs[name]()
        cancelled += [name] if scope.cancelled_caught else []
        assert os.listdir(system.repository / "locks") == [], name
        scratch = system.settings.scratch
        assert not scratch.is_dir() or os.listdir(scratch) == [], name
        assert os.listdir(out) == [], name
    assert set(cancelled) >= {"create", "check", "verify data", "verify restore", "tar", "scratch"}
