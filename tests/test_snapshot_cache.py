"""The cache of snapshots changes nothing but speed, whatever becomes of its file."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs

from mcp_backup import snapshot_cache as module
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.unpacked import encode_unpacked
from mcp_backup.settings_sections import ConfigSettings
from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import BackupPage, BackupType, CreateRequest
from tests.doubles import FaultyStore, FrozenClock
from tests.system import System, make_system

BACKUPS = 5
SMALL = CreateRequest(BackupType.CONFIG, verify=False)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def system(tmp_path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system with some backups, all of them in the cache."""
    monkeypatch.setattr(module, "_FEW", 1)
    made = await filled(tmp_path / "one", clock)
    await read(made, clock)
    assert cache_of(made).exists()
    return made


async def filled(root: Path, clock: FrozenClock) -> System:
    made = await make_system(root, rows=1)
    files = ConfigSettings(name="project", root=root / "project", include=("*.toml",))
    system = System(root, structs.replace(made.settings, config=(files,)))
    async with system.engine(clock) as engine:
        for _ in range(BACKUPS):
            clock.advance(timedelta(days=1))
            await engine.create(SMALL)
    return system


def cache_of(system: System) -> Path:
    (state,) = [each for each in (system.root / "state").iterdir() if each.name != "scratch"]
    return state / "snapshots.cache"


async def read(system: System, clock: FrozenClock) -> tuple[BackupPage, int]:
    """List the backups in a new process, so to say; tell how many objects it took."""
    store = FaultyStore(LocalStore(system.repository))
    async with system.engine(clock, store) as engine:
        opened = len(store.calls)
        page = await engine.backups()
        return page, sum(verb == "get" for verb, _ in store.calls[opened:])


async def test_what_is_in_the_cache_is_listed_without_reading_a_snapshot(
    system: System, clock: FrozenClock
) -> None:
    page, gets = await read(system, clock)
    assert gets == 0
    cache_of(system).unlink()
    told, gets = await read(system, clock)
    assert gets > 2 * BACKUPS
    assert page == told
    assert len(page.entries) == BACKUPS
    assert page.entries[0].sources == ("project",)
    assert page.entries[0].held_by[0] == "latest"


def missing(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [missing, cut_short, flipped, emptied, a_directory])
async def test_a_cache_that_is_damaged_or_gone_costs_time_alone(
    system: System, clock: FrozenClock, spoil: Callable[[Path], None]
) -> None:
    page, _ = await read(system, clock)
    spoil(cache_of(system))
    told, gets = await read(system, clock)
    assert told == page
    assert gets > 2 * BACKUPS


async def test_another_repositorys_cache_is_not_believed(
    system: System, clock: FrozenClock, tmp_path: Path
) -> None:
    other = await filled(tmp_path / "other", clock)
    before, _ = await read(other, clock)
    shutil.copy(cache_of(system), cache_of(other))
    told, gets = await read(other, clock)
    assert told == before
    assert gets > 2 * BACKUPS


async def test_what_the_repositorys_own_key_seals_is_no_cache(
    system: System, clock: FrozenClock
) -> None:
    """Or a file that was backed up could be handed to us as one."""
    page, _ = await read(system, clock)
    async with system.engine(clock) as engine:
        forged = encode_unpacked(b'{"version": 1, "repository": "", "snapshots": []}')
        cache_of(system).write_bytes(Sealer(engine.repository.key).seal(forged))
    told, gets = await read(system, clock)
    assert told == page
    assert gets > 2 * BACKUPS


async def test_what_others_added_or_dropped_is_seen(system: System, clock: FrozenClock) -> None:
    page, _ = await read(system, clock)
    oldest = page.entries[-1].snapshot_id
    (system.repository / "snapshots" / oldest).unlink()
    aside = cache_of(system).rename(system.root / "aside")
    async with system.engine(clock) as engine:
        clock.advance(timedelta(days=1))
        newest = (await engine.create(SMALL)).snapshot_id
    shutil.copy(aside, cache_of(system))  # from before
    told, _ = await read(system, clock)
    found = [entry.snapshot_id for entry in told.entries]
    assert found == [newest, *(entry.snapshot_id for entry in page.entries[:-1])]
    assert oldest not in found


async def test_a_snapshot_whose_file_was_cut_short_is_damaged_all_the_same(
    system: System, clock: FrozenClock
) -> None:
    page, _ = await read(system, clock)
    file = system.repository / "snapshots" / page.entries[1].snapshot_id
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1])
    told, _ = await read(system, clock)
    assert told.damaged == (f"snapshots/{file.name}",)
    assert len(told.entries) == BACKUPS - 1


async def test_check_reads_every_snapshot_whatever_the_cache_says(
    system: System, clock: FrozenClock
) -> None:
    page, _ = await read(system, clock)
    file = system.repository / "snapshots" / page.entries[1].snapshot_id
    file.chmod(0o600)
    flipped(file)
    async with system.engine(clock) as engine:
        await engine.backups()
        report = await engine.check()
    assert file.name in {finding.subject.rpartition("/")[2] for finding in report.findings}


async def test_nothing_of_it_can_be_read_without_the_key(system: System) -> None:
    data = cache_of(system).read_bytes()
    assert b"project" not in data
    assert cache_of(system).stat().st_mode & 0o077 == 0
