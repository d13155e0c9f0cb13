"""Prune: what goes, what stays, what stops it, and what is left after any interruption."""

from contextlib import suppress
from dataclasses import dataclass

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError, RepositoryLocked, StoreError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, SnapshotId, digest
from mcp_backup.format.tree import dir_node, encode_tree
from mcp_backup.progress import Progress
from mcp_backup.repository.locks import locked
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.prune import MANY_SMALL_PACKS, Fate, survey
from mcp_backup.repository.repository import Repository
from mcp_backup.store.memory import MemoryStore
from mcp_backup.store.store import Store
from tests.doubles import Fault, FaultyStore, How
from tests.repository.packing import (
    MTIME,
    new_repository,
    save_backup,
    save_index,
    save_pack,
    save_snapshot,
    stored_file,
)
from tests.repository.pooling import noise
from tests.repository.pruning import (
    ALONE,
    assert_whole,
    back_up,
    contents,
    forget,
    prune,
    reasons,
    reopened,
    save_odd_pack,
)

LARGE = 5 << 20  # bytes; more than a small pack has


def objects(store: Store, under: str = "data/") -> set[str]:
    assert isinstance(store, MemoryStore)
    return {name for name in store.contents if name.startswith(under)}


async def large_and_small(repository: Repository, spare: int) -> SnapshotId:
    """A snapshot with one data pack of LARGE bytes, of which `spare` will not be needed."""
    needed, not_needed = noise(LARGE - spare), noise(spare)
    first = await back_up(repository, {"a": [needed, not_needed]})
    await back_up(repository, {"a": [needed]})
    await forget(repository, first)
    return first


async def test_what_no_snapshot_needs_goes_and_all_else_stays() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    gone = await back_up(repository, {"a": [b"only in the first"], "b": [b"in both"]})
    await back_up(repository, {"b": [b"in both"], "c": [b"only in the second"]})
    await forget(repository, gone)
    kept = await contents(repository)
    report = await prune(repository)
    await assert_whole(store, kept)
    index = await (await reopened(store)).load_index()
    assert len(index) == 4  # two files and two trees
    assert report.freed_bytes > 0
    assert report.unused_bytes == 0
    assert (report.snapshots, report.dry_run) == (1, False)


async def test_a_repository_without_snapshots_becomes_empty() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await forget(repository, await back_up(repository, {"a": [b"gone"]}))
    await prune(repository)
    assert objects(store) | objects(store, "index/") == set()
    await assert_whole(store, {})


async def test_a_prune_with_nothing_to_do_changes_nothing() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await back_up(repository, {"a": [b"stays"]})
    before = dict(store.contents)
    report = await prune(repository)
    assert report.freed_bytes == 0
    assert store.contents == before


async def test_a_plan_changes_nothing_and_tells_reasons_and_bytes() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    first = await back_up(repository, {"a": [b"first"]})
    await back_up(repository, {"a": [b"second"]})
    before = dict(store.contents)
    plan = await survey(repository, without=frozenset((first,)))
    assert store.contents == before
    assert reasons(plan, Fate.DELETE) == ["nothing needs it"] * 2
    assert reasons(plan, Fate.KEEP) == ["needed"] * 2
    for each in plan.packs:
        assert each.size == len(store.contents[pack_name(each.pack)])
    report = plan.report()
    assert report.dry_run
    assert report.freed_bytes == sum(each.size for each in plan.of(Fate.DELETE))
    assert [(group.fate, group.packs) for group in report.packs] == [("delete", 2), ("keep", 2)]


async def test_packs_that_no_index_lists_are_deleted() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await back_up(repository, {"a": [b"stays"]})
    orphan = await save_pack(repository, BlobKind.DATA, [b"of a backup that was interrupted"])
    kept, index = await contents(repository), objects(store, "index/")
    await prune(repository)
    assert pack_name(orphan.pack) not in objects(store)
    assert objects(store, "index/") == index
    await assert_whole(store, kept)


@pytest.mark.parametrize(("percent", "fate"), [(4, Fate.KEEP), (6, Fate.REPACK)])
async def test_a_large_pack_is_repacked_when_more_than_five_percent_are_not_needed(
    percent: int, fate: Fate
) -> None:
    repository = await new_repository(MemoryStore())
    await large_and_small(repository, LARGE * percent // 100)
    kept = await contents(repository)
    (plan,) = [each for each in (await survey(repository)).packs if each.size > LARGE]
    assert plan.fate is fate
    report = await prune(repository)
    assert (report.unused_bytes > 0) == (fate is Fate.KEEP)
    await assert_whole(repository.store, kept)


async def test_partly_needed_trees_are_always_repacked() -> None:
    repository = await new_repository(MemoryStore())
    await back_up(repository, {"large": [noise(LARGE)]})
    root = encode_tree([dir_node("data", BlobId(digest(b"x")), mode=0o755, mtime_ns=MTIME)])
    inner = encode_tree([stored_file("a", [])])
    trees = await save_pack(repository, BlobKind.TREE, [inner, root])
    await save_index(repository, trees)
    await save_snapshot(repository, BlobId(digest(inner)))
    plan = await survey(repository)
    assert reasons(plan, Fate.REPACK) == ["partly needed trees"]
    await prune(repository)
    await assert_whole(repository.store, await contents(repository))
    assert (await survey(repository)).of(Fate.REPACK) == []


async def test_sealed_blobs_are_copied_as_they_are() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    gone = await back_up(repository, {"a": [b"stays " * 50, noise(100), b"goes " * 50]})
    await back_up(repository, {"a": [b"stays " * 50]})
    await forget(repository, gone)

    async def sealed() -> tuple[str, bytes]:
        index = await repository.load_index(refresh=True)
        found = index.find(BlobKind.DATA, BlobId(digest(b"stays " * 50)))
        assert found is not None
        name = pack_name(found.pack)
        return name, await store.get(name, found.offset, found.length)

    pack, before = await sealed()
    await prune(repository)
    assert pack not in objects(store)
    assert (await sealed())[1] == before


async def test_blobs_of_both_kinds_in_one_pack_are_put_apart() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    tree = encode_tree([stored_file("a", [b"content"])])
    await save_odd_pack(repository, (BlobKind.TREE, tree, True), (BlobKind.DATA, b"content", False))
    await save_snapshot(repository, BlobId(digest(tree)))
    kept = await contents(repository)
    assert reasons(await survey(repository)) == ["trees and data in one pack"]
    await prune(repository)
    await assert_whole(store, kept)
    assert reasons(await survey(repository)) == ["needed", "needed"]


async def test_uncompressed_trees_are_compressed() -> None:
    repository = await new_repository(MemoryStore())
    tree = encode_tree([stored_file("a", [])])
    await save_odd_pack(repository, (BlobKind.TREE, tree, False))
    await save_snapshot(repository, BlobId(digest(tree)))
    assert reasons(await survey(repository)) == ["uncompressed trees"]
    await prune(repository)
    await assert_whole(repository.store, await contents(repository))
    index = await repository.load_index()
    (entry,) = [entry for pack in index.packs() for entry in index.entries(pack)]
    assert entry.plain_length == len(tree)


@pytest.mark.parametrize("backups", [MANY_SMALL_PACKS - 1, MANY_SMALL_PACKS])
async def test_small_packs_are_merged_when_there_are_many(backups: int) -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    for n in range(backups):
        await back_up(repository, {"a": [b"content %d" % n]})
    kept = await contents(repository)
    await prune(repository)
    assert len(objects(store)) == (2 if backups == MANY_SMALL_PACKS else 2 * backups)
    await assert_whole(store, kept)


async def twice(repository: Repository, *chunks: bytes) -> list[str]:
    """A snapshot of a file whose chunks lie in two packs, as two backups at once leave them."""
    await save_backup(repository, {"a": list(chunks)})
    again = await save_pack(repository, BlobKind.DATA, chunks)
    await save_index(repository, again)
    index = await repository.load_index(refresh=True)
    places = index.find_all(BlobKind.DATA, BlobId(digest(chunks[0])))
    return [pack_name(place.pack) for place in places]


async def test_a_blob_that_lies_twice_is_left_once() -> None:
    repository = await new_repository(MemoryStore())
    first, second = await twice(repository, b"one", b"two")
    kept = await contents(repository)
    await prune(repository)
    assert len({first, second} & objects(repository.store)) == 1
    await assert_whole(repository.store, kept)
    assert reasons(await survey(repository)) == ["needed", "needed"]


async def test_of_two_copies_the_one_with_less_around_it_that_is_not_needed_stays() -> None:
    repository = await new_repository(MemoryStore())
    gone = await save_backup(repository, {"a": [b"stays", b"goes"]})
    await save_backup(repository, {"a": [b"stays"]})
    await forget(repository, gone)
    index = await repository.load_index(refresh=True)
    alone = [pack for pack in index.packs() if len(index.entries(pack)) == 1]
    plan = await survey(repository)
    assert [each.pack for each in plan.of(Fate.KEEP)][:1] == alone
    assert plan.of(Fate.REPACK) == []


async def test_the_last_copy_is_proven_before_the_other_goes() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await twice(repository, noise(100, 1), noise(100, 2))
    plan = await survey(repository)
    (kept,) = [
        each.pack
        for each in plan.of(Fate.KEEP)
        if plan.index.entries(each.pack)[0].kind is BlobKind.DATA
    ]
    flip(store, pack_name(kept), 40)
    before = dict(store.contents)
    with pytest.raises(IntegrityError, match=pack_name(kept)):
        await prune(repository)
    assert store.contents == before


async def test_a_damaged_blob_stops_a_prune_before_anything_needed_is_deleted() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    gone = await back_up(repository, {"a": [noise(100, 1), noise(100, 2)]})
    await back_up(repository, {"a": [noise(100, 1)], "b": [noise(100, 3)]})
    await forget(repository, gone)
    index = await repository.load_index(refresh=True)
    found = index.find(BlobKind.DATA, BlobId(digest(noise(100, 1))))
    assert found is not None
    assert found.pack in [each.pack for each in (await survey(repository)).of(Fate.REPACK)]
    flip(store, pack_name(found.pack), found.offset + 20)
    before = objects(store)
    with pytest.raises(IntegrityError, match=pack_name(found.pack)):
        await prune(repository)
    assert before <= objects(store)


def flip(store: MemoryStore, name: str, at: int) -> None:
    data = bytearray(store.contents[name])
    data[at] ^= 1
    store.contents[name] = bytes(data)


async def test_a_needed_blob_that_is_in_no_index_stops_a_prune() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    snapshot = await back_up(repository, {"a": [b"one"]})
    (index,) = objects(store, "index/")
    del store.contents[index]
    await repository.load_index(refresh=True)
    await back_up(repository, {"b": [b"two"]})
    await assert_refused(store, f"snapshot {snapshot.hex()[:8]} needs tree blob .* in no index")


async def test_a_needed_pack_that_is_missing_or_cut_short_stops_a_prune() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await back_up(repository, {"a": [b"one"]})
    index = await repository.load_index(refresh=True)
    (pack,) = [p for p in index.packs() if index.entries(p)[0].kind is BlobKind.DATA]
    whole = store.contents[pack_name(pack)]
    store.contents[pack_name(pack)] = whole[:-1]
    await assert_refused(store, f"{len(whole) - 1} bytes, wanted {len(whole)}")
    del store.contents[pack_name(pack)]
    await assert_refused(store, f"{pack_name(pack)}: missing, wanted {len(whole)}")


async def assert_refused(store: MemoryStore, message: str) -> None:
    before = dict(store.contents)
    with pytest.raises(IntegrityError, match=message):
        await prune(await reopened(store))
    assert store.contents == before


async def test_a_missing_pack_that_nothing_needs_leaves_the_index() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    gone = await save_pack(repository, BlobKind.DATA, [b"gone"])
    await save_index(repository, gone)
    await back_up(repository, {"a": [b"stays"]})
    del store.contents[pack_name(gone.pack)]
    kept = await contents(repository)
    assert "missing, and nothing needs it" in reasons(await survey(repository), Fate.DELETE)
    await prune(repository)
    await assert_whole(store, kept)


async def test_an_unreadable_snapshot_or_index_stops_a_prune() -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    await forget(repository, await back_up(repository, {"a": [b"one"]}))
    snapshot = await back_up(repository, {"b": [b"two"]})
    for name in (f"snapshots/{snapshot.hex()}", min(objects(store, "index/"))):
        intact = store.contents[name]
        flip(store, name, 30)
        await assert_refused(store, name)
        store.contents[name] = intact


async def test_a_backup_is_locked_out_while_a_prune_runs() -> None:
    store = MemoryStore()
    repository, another = await new_repository(store), await reopened(store)
    await forget(repository, await back_up(repository, {"a": [b"one"]}))
    refused = 0

    async def intrude(progress: Progress) -> None:
        nonlocal refused
        with pytest.raises(RepositoryLocked):
            async with locked(another, times=ALONE):
                raise AssertionError
        refused += 1

    await prune(repository, intrude)
    assert refused
    async with locked(another, times=ALONE):
        with pytest.raises(RepositoryLocked):
            await prune(repository)


async def test_progress_never_falls_and_ends_at_its_total() -> None:
    repository = await new_repository(MemoryStore())
    await large_and_small(repository, LARGE // 2)
    seen: dict[str, list[Progress]] = {}

    async def listener(progress: Progress) -> None:
        seen.setdefault(progress.stage, []).append(progress)

    await prune(repository, listener)
    assert list(seen) == ["mark", "repack", "delete"]
    for stage, reports in seen.items():
        done = [report.done for report in reports]
        assert done == sorted(done)
        assert stage == "mark" or done[-1] <= reports[-1].total
    assert seen["delete"][-1].done == seen["delete"][-1].total


async def test_who_knew_the_old_index_finds_what_was_moved() -> None:
    store = MemoryStore()
    repository, another = await new_repository(store), await reopened(store)
    gone = await back_up(repository, {"a": [b"stays", b"goes"]})
    await back_up(repository, {"a": [b"stays"], "b": [b"new"]})
    await another.load_index()
    await forget(repository, gone)
    await prune(repository)
    for each in (repository, another):
        assert await each.load_blob(BlobKind.DATA, BlobId(digest(b"stays"))) == b"stays"


async def test_under_a_lock_the_index_lists_no_pack_that_was_pruned() -> None:
    store = MemoryStore()
    repository, another = await new_repository(store), await reopened(store)
    await forget(repository, await back_up(repository, {"a": [b"goes"]}))
    await another.load_index()
    await prune(repository)
    async with locked(another, times=ALONE):
        assert list((await another.load_index()).packs()) == []


class PrunedMeanwhile(MemoryStore):
    """A store in which somebody prunes between our listing of the index and reading it."""

    def __init__(self) -> None:
        super().__init__()
        self.pruner: Repository | None = None

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self.pruner and name.startswith("index/"):
            pruner, self.pruner = self.pruner, None
            await prune(pruner)
        return await super().get(name, offset, length)


async def test_an_index_that_is_pruned_while_it_is_loaded_is_loaded_again() -> None:
    store = PrunedMeanwhile()
    repository, another = await new_repository(store), await reopened(store)
    gone = await back_up(repository, {"a": [b"stays", b"goes"]})
    await back_up(repository, {"a": [b"stays"], "b": [b"new"]})
    await forget(repository, gone)
    store.pruner = repository
    assert await another.load_blob(BlobKind.DATA, BlobId(digest(b"stays"))) == b"stays"


async def scene(store: Store) -> None:
    """Two snapshots left of three; packs of every fate, a blob twice, and a pack in no index."""
    repository = await new_repository(store)
    gone = await back_up(repository, {"a": [b"stays", b"goes"], "b": [b"goes too"]})
    await back_up(repository, {"a": [b"stays"], "c": [b"new", noise(3000, 1)]})
    await back_up(repository, {"d": [noise(3000, 1), b"newer"]})
    await save_index(repository, await save_pack(repository, BlobKind.DATA, [noise(3000, 1)]))
    await save_pack(repository, BlobKind.DATA, [b"of a backup that was interrupted"])
    await forget(repository, gone)


async def test_a_fault_at_any_call_leaves_every_snapshot_whole_and_the_next_prune_finishes() -> (
    None
):
    template = MemoryStore()
    await scene(template)
    kept = await contents(await reopened(template))
    calm = FaultyStore(copied(template))
    await prune(await reopened(calm))
    done = objects(calm.store)
    assert {verb for verb, _ in calm.calls} == {"put", "get", "objects", "delete", "size"} - {
        "size"
    }
    for how in (How.BEFORE, How.AFTER):
        for nth in range(1, len(calm.calls) + 1):
            store = copied(template)
            faulty = FaultyStore(store, Fault("any", nth, how, error=StoreError("scripted")))
            with suppress(StoreError):
                await prune(await reopened(faulty))
            await assert_whole(store, kept)
            await prune(await reopened(store))
            await assert_whole(store, kept)
            assert len(objects(store)) == len(done), f"call {nth}: {calm.calls[nth - 1]}"


def copied(store: MemoryStore) -> MemoryStore:
    another = MemoryStore()
    another.contents = dict(store.contents)
    return another


async def test_a_cancel_at_any_report_leaves_every_snapshot_whole() -> None:
    template = MemoryStore()
    await scene(template)
    kept = await contents(await reopened(template))
    for nth in range(1, 100):
        store, seen = copied(template), 0
        with anyio.CancelScope() as scope:

            async def stop(
                progress: Progress, at: int = nth, scope: anyio.CancelScope = scope
            ) -> None:
                nonlocal seen
                seen += 1
                if seen == at:
                    scope.cancel()

            await prune(await reopened(store), stop)
        await assert_whole(store, kept)
        assert objects(store, "locks/") == set()
        if not scope.cancelled_caught:
            break
    assert nth > 5


@dataclass(frozen=True)
class Step:
    """A backup of one file with these chunks, stored again or only what is new; kept or not."""

    chunks: list[int]
    anew: bool
    forgotten: bool


steps = st.builds(Step, st.lists(st.integers(0, 9), max_size=6), st.booleans(), st.booleans())


@given(st.lists(steps, max_size=8))
@settings(max_examples=60)
def test_after_any_history_everything_needed_is_there_once_and_nothing_else(
    history: list[Step],
) -> None:
    anyio.run(live_and_prune, history)


async def live_and_prune(history: list[Step]) -> None:
    store = MemoryStore()
    repository = await new_repository(store)
    for number, step in enumerate(history):
        files = {f"{number}": [b"chunk %d " % chunk * 20 for chunk in step.chunks]}
        save = save_backup if step.anew and step.chunks else back_up
        snapshot = await save(repository, files)
        if step.forgotten:
            await forget(repository, snapshot)
    kept = await contents(repository)
    needed = len((await survey(repository)).used)
    await prune(repository)
    await assert_whole(store, kept)
    assert len(await (await reopened(store)).load_index()) == needed
    assert set(reasons(await survey(repository))) <= {"needed"}
