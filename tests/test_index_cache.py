"""The index that is kept for the next process changes nothing but speed."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio import from_thread
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup import index_cache as module
from mcp_backup.errors import IntegrityError
from mcp_backup.forgetting import prune
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, PackId, digest
from mcp_backup.format.pack import PackEntry
from mcp_backup.index_cache import IndexCache
from mcp_backup.repository.blob_index import BlobIndex, Recalled
from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import BackupReport, BackupType, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreReport, RestoreRequest
from tests.doubles import FaultyStore
from tests.system import System, change, make_system, settled
from tests.test_snapshot_cache import a_directory, cut_short, emptied, flipped, missing

AGAIN = CreateRequest(BackupType.INCREMENTAL, verify=False)


@pytest.fixture
async def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system with a backup of everything, whose index is kept."""
    monkeypatch.setattr(module, "_FEW", 1)
    made = await make_system(tmp_path / "one")
    await settled(made)
    async with made.engine() as engine:
        await engine.create(CreateRequest())
    assert cache_of(made).exists()
    return made


def cache_of(system: System) -> Path:
    (state,) = [each for each in (system.root / "state").iterdir() if each.name != "scratch"]
    return state / "index.cache"


def index_files(system: System) -> set[Path]:
    return set((system.repository / "index").iterdir())


async def again(system: System, request: CreateRequest = AGAIN) -> tuple[BackupReport, set[str]]:
    """Back up in a new process, so to say; return the index files that were read for it."""
    store = FaultyStore(LocalStore(system.repository))
    async with system.engine(store=store) as engine:
        report = await engine.create(request)
    async with system.engine() as engine:
        assert (await engine.check(Level.DATA)).findings == ()
    return report, index_files_read(store)


def outcomes(report: BackupReport) -> list[str]:
    return [outcome.outcome for outcome in report.outcomes]


async def test_the_next_backup_reads_no_index_file_and_finds_all_unchanged(system: System) -> None:
    report, read = await again(system)
    assert (outcomes(report), read) == (["unchanged"] * 3, set())
    change(system.notes)
    report, read = await again(system)  # the small index file of the last, and no other
    assert outcomes(report) == ["stored", "unchanged", "unchanged"]
    assert len(read) == 1


async def test_who_needs_the_index_while_the_kept_one_is_being_read_waits_for_it(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be made of its files a second time, as slowly as ever."""
    asked, load = anyio.Event(), IndexCache._load
    tree = BlobId(bytes(32))

    def slowly(cache: IndexCache) -> Recalled | None:
        from_thread.run_sync(asked.set)
        time.sleep(0.1)
        return load(cache)

    monkeypatch.setattr(IndexCache, "_load", slowly)
    store = FaultyStore(LocalStore(system.repository))
    async with system.engine(store=store) as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(engine.index_cache.load, trusted=True))
        await asked.wait()
        assert (BlobKind.TREE, tree) not in await engine.repository.load_index()
    assert index_files_read(store) == set()


async def test_a_full_backup_reads_the_index_itself(system: System) -> None:
    there = len(index_files(system))
    report, read = await again(system, CreateRequest(BackupType.FULL))
    assert outcomes(report) == ["stored"] * 3
    assert len(read) == there


@pytest.mark.parametrize("spoil", [missing, cut_short, flipped, emptied, a_directory])
async def test_a_file_that_is_damaged_or_gone_costs_time_alone(
    system: System, spoil: Callable[[Path], None]
) -> None:
    there = len(index_files(system))
    spoil(cache_of(system))
    report, read = await again(system)
    assert (outcomes(report), len(read)) == (["unchanged"] * 3, there)


async def test_another_repositorys_index_is_not_believed(system: System, tmp_path: Path) -> None:
    other = await make_system(tmp_path / "other")
    change(other.notes)
    async with other.engine() as engine:
        await engine.create(CreateRequest())
    there = len(index_files(other))
    shutil.copy(cache_of(system), cache_of(other))
    _, read = await again(other)
    assert len(read) == there


async def test_an_index_from_before_a_prune_is_not_believed(system: System) -> None:
    shutil.copy(cache_of(system), system.root / "aside")
    async with system.engine() as engine:
        for backup in await engine.catalog.backups():
            (system.repository / "snapshots" / backup.id.hex()).unlink()
        await prune(engine)
    shutil.copy(system.root / "aside", cache_of(system))
    report, _ = await again(system)
    assert outcomes(report) == ["stored"] * 3


async def test_a_repository_put_back_to_an_earlier_state_gets_what_it_lacks(
    system: System,
) -> None:
    shutil.copytree(system.repository, system.root / "earlier")
    change(system.notes)
    await again(system)
    shutil.rmtree(system.repository)
    (system.root / "earlier").rename(system.repository)
    report, _ = await again(system)
    assert outcomes(report)[0] == "stored"


BLOBS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=30)


@given(
    listings=st.lists(st.tuples(st.integers(0, 8), BLOBS), max_size=8),
    whole=st.sets(BLOBS.map(len)),
)
def test_an_index_comes_back_as_it_was(
    listings: list[tuple[int, list[tuple[int, int]]]], whole: set[int]
) -> None:
    index = BlobIndex()
    for pack, blobs in listings:
        index.add(
            PackId(digest(bytes([pack, 255]))),
            [
                PackEntry(BlobKind(number % 2), BlobId(digest(bytes([number]))), 99 * at, 99, at)
                for number, at in blobs
            ],
        )
    for number in sorted(whole):
        index.found_whole(BlobId(digest(bytes([number, 1]))))
    again = BlobIndex.thawed(memoryview(b"".join(index.frozen())))
    assert list(again.packs()) == list(index.packs())
    for listed in index.packs():
        assert again.entries(listed) == index.entries(listed)
    for number in range(61):
        for kind in BlobKind:
            blob = BlobId(digest(bytes([number])))
            assert again.find_all(kind, blob) == index.find_all(kind, blob)
            assert again.position(kind, blob) == index.position(kind, blob)
    assert again.newest_whole == index.newest_whole
    assert all(again.is_whole(BlobId(digest(bytes([number, 1])))) for number in whole)
    assert len(again) == len(index)
    assert again.frozen() == index.frozen()


async def restored(system: System, request: RestoreRequest) -> tuple[RestoreReport, set[str]]:
    """Restore in a new process, so to say; return the index files that were read for it."""
    store = FaultyStore(LocalStore(system.repository))
    async with system.engine(store=store) as engine:
        plan = await engine.plan_restore(request)
        report = await engine.restore(plan.plan_id, consent=True)
    return report, index_files_read(store)


def index_files_read(store: FaultyStore) -> set[str]:
    return {name for verb, name in store.calls if verb == "get" and name.startswith("index/")}


async def test_a_restore_believes_the_index_that_was_kept(system: System) -> None:
    for request, status in (
        (RestoreRequest(target="scratch"), "staged"),
        (RestoreRequest(target="original"), "restored"),
    ):
        report, read = await restored(system, request)
        assert (report.status, read) == (status, set())


async def test_a_plan_keeps_the_index_that_it_had_to_read(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is carried out soon, and often by another process."""
    monkeypatch.setattr(module, "_BEHIND", 1)
    cache_of(system).unlink()
    store = FaultyStore(LocalStore(system.repository))
    async with system.engine(store=store) as engine:
        await engine.plan_restore(RestoreRequest())
    assert index_files_read(store) == {f"index/{each.name}" for each in index_files(system)}
    _, read = await restored(system, RestoreRequest())
    assert read == set()


async def test_after_a_restore_that_found_damage_the_next_reads_the_index_itself(
    system: System,
) -> None:
    """Should what was kept ever be wrong, it stands in the way of one attempt and no other."""
    packs = {path: path.read_bytes() for path in (system.repository / "data").glob("*/*")}
    async with system.engine() as engine:
        plan = await engine.plan_restore(RestoreRequest(target="scratch"))
    for path, intact in packs.items():
        path.write_bytes(bytes(len(intact)))
    async with system.engine() as engine:
        with pytest.raises(IntegrityError):
            await engine.restore(plan.plan_id)
    for path, intact in packs.items():
        path.write_bytes(intact)
    there = len(index_files(system))
    report, read = await restored(system, RestoreRequest(target="scratch"))
    assert (report.status, len(read)) == ("staged", there)
