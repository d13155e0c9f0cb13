"""append_only: a machine that adds backups and deletes none; a store that lets nobody delete."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs

from mcp_backup import keyring
from mcp_backup.engine import Engine
from mcp_backup.errors import RepositoryLocked, StoreDenied
from mcp_backup.forgetting import forget, prune
from mcp_backup.place import Place
from mcp_backup.repository.locks import locked
from mcp_backup.secret import Secret
from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import BackupType, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.doubles import FOREVER, Fault, FaultyStore, FrozenClock, denied
from tests.system import System, make_system

CONFIG = CreateRequest(BackupType.CONFIG)


@pytest.fixture
async def system(tmp_path: Path) -> System:
    made = await make_system(tmp_path / "live", rows=3)
    settings = made.settings
    repository = structs.replace(settings.repository, append_only=True)
    return System(made.root, structs.replace(settings, repository=repository))


@asynccontextmanager
async def undeletable(
    system: System, clock: FrozenClock
) -> AsyncIterator[tuple[Engine, FaultyStore]]:
    """An engine on a store that lets nobody delete anything, as an immutable bucket does."""
    store = FaultyStore(
        LocalStore(system.repository), Fault("delete", 1, times=FOREVER, error=denied())
    )
    async with system.engine(clock, store) as engine:
        yield engine, store


async def test_backups_are_added_and_nothing_but_locks_is_deleted(system: System) -> None:
    store = FaultyStore(LocalStore(system.repository))
    async with system.engine(store=store) as engine:
        first = await engine.create(CONFIG)
        second = await engine.create(CONFIG)
        assert (await engine.verify(first.backup_id, Level.DATA)).ok
        plan = await engine.plan_restore(RestoreRequest(second.backup_id, target="scratch"))
        assert (await engine.restore(plan.plan_id)).targets
        added = await keyring.add(engine, Secret("another"), Place("h", "u", {}), generated=True)
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: forget(engine),
            lambda: prune(engine),
            lambda: keyring.remove(engine, added.key_id),
        ]
        for verb in refused:
            with pytest.raises(StoreDenied, match="only added to") as told:
                await verb()
            assert "Run this where the repository may be deleted from" in told.value.hint
        assert {name.partition("/")[0] for verb, name in store.calls if verb == "delete"} == {
            "locks"
        }
        assert (await prune(engine, dry_run=True)).freed_bytes == 0
        assert (await engine.check(Level.DATA)).ok
        assert len(await keyring.list_keys(engine)) == 2


async def test_a_store_that_denies_every_delete_still_takes_backups(system: System) -> None:
    clock = FrozenClock()
    for _ in range(2):  # the second finds the lock of the first, which ended
        async with undeletable(system, clock) as (engine, _store):
            assert (await engine.create(CONFIG)).status == "completed"
    assert len(list((system.repository / "locks").iterdir())) == 2
    clock.advance(timedelta(hours=1))
    async with undeletable(system, clock) as (engine, _store):
        with pytest.raises(RepositoryLocked) as told:
            async with locked(engine.repository, exclusive=True):
                pass
        assert "restic unlock" in told.value.hint
        assert (await engine.create(CONFIG)).status == "completed"


async def test_the_settings_alone_decide_and_say_no_by_default(system: System) -> None:
    assert not (await make_system(system.root.parent / "other", 1)).settings.repository.append_only
