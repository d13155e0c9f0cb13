"""The catalog follows what others add and forget, and says what one that begins anew would."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from mcp_backup import catalog as module
from mcp_backup.catalog import TAG, Catalog
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.repository.locks import locked
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.local import LocalStore
from tests.doubles import FrozenClock
from tests.repository.packing import PASSWORD, new_repository

STEPS = 40


@pytest.fixture
async def repository(tmp_path: Path, clock: FrozenClock) -> Repository:
    store = LocalStore(tmp_path / "repository")
    await store.create_layout()
    return await new_repository(store, clock)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


async def another(repository: Repository) -> Repository:
    """The same repository, as another process has it."""
    store = LocalStore(Path(repository.store.location))
    now = repository.now
    return await open_repository(store, PASSWORD, now=now, hostname="there", username="tester")


def snapshots(repository: Repository, chance: Random) -> Iterator[Snapshot]:
    """Yield snapshots of ours, in no order of time, some of the same second."""
    while True:
        moment = repository.now() + timedelta(hours=chance.randrange(50))
        yield Snapshot(
            time=moment,
            tree=BlobId(bytes(32)),
            paths=("/",),
            hostname="here",
            tags=(TAG, f"backup_{moment:%Y%m%d_%H%M%S}", "full"),
        )


@pytest.mark.parametrize("few", [0, 1000])
async def test_it_follows_what_others_add_and_forget(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(module, "_FEW", few)
    chance = Random(few)  # noqa: S311 - a repeatable order, not a secret
    stranger = await another(repository)
    made = snapshots(repository, chance)
    catalog, there = Catalog(repository), list[SnapshotId]()
    for _ in range(STEPS):
        for _ in range(chance.randrange(4)):
            actor = chance.choice((repository, stranger))
            there.append(await actor.add_snapshot(next(made)))
        if len(there) > 10:
            async with locked(stranger, exclusive=True):
                await stranger.forget(there.pop(chance.randrange(len(there))))
        assert await catalog.backups() == await Catalog(await another(repository)).backups()
        assert {backup.id for backup in await catalog.backups()} == set(there)
        assert len(repository._snapshots) == len(there)


async def test_the_next_id_is_one_that_nobody_has(
    repository: Repository, clock: FrozenClock
) -> None:
    stranger, catalog, now = await another(repository), Catalog(repository), clock()
    first = f"backup_{now:%Y%m%d_%H%M%S}"
    assert await catalog.next_backup_id(now) == first
    snapshot = next(snapshots(repository, Random(1)))  # noqa: S311 - the same
    for taken, following in ((first, f"{first}_2"), (f"{first}_2", f"{first}_3")):
        made = await stranger.add_snapshot(replace(snapshot, tags=(TAG, taken, "full")))
        assert await catalog.next_backup_id(now) == following
    async with locked(stranger, exclusive=True):
        await stranger.forget(made)
    assert await catalog.next_backup_id(now) == f"{first}_2"
