"""Whatever is damaged is found, and named; what is not, is not."""

from collections.abc import Callable

import anyio
import pytest
from msgspec.structs import replace

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, PackId, digest
from mcp_backup.format.index import PackListing, decode_index
from mcp_backup.format.pack import PackEntry
from mcp_backup.format.tree import Node, dir_node, encode_tree
from mcp_backup.progress import Progress
from mcp_backup.repository.check import check
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.pack_examining import examine_pack
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.memory import MemoryStore
from mcp_backup.verbs import CheckReport, Level
from tests.doubles import FrozenClock
from tests.repository.packing import (
    PASSWORD,
    make_pack,
    new_repository,
    save_backup,
    save_index,
    save_pack,
    save_snapshot,
    stored_file,
)

FILES = {"notes.db": [b"page one " * 500, b"page two " * 500], "empty": [], "rules": [b"x"]}


async def sound() -> tuple[MemoryStore, Repository]:
    store = MemoryStore()
    repository = await new_repository(store)
    await save_backup(repository, FILES)
    return store, repository


async def packs_of(repository: Repository) -> dict[BlobKind, PackListing]:
    """The one pack of each kind that `sound` makes."""
    (name,) = await repository.store.objects("index/")
    document = await repository.load_unpacked("index", bytes.fromhex(name[6:]))
    return {listing.entries[0].kind: listing for listing in decode_index(document)}


def found(report: CheckReport) -> dict[str, str]:
    return {finding.code: finding.subject for finding in report.findings}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("level", [Level.STRUCTURE, Level.DATA])
async def test_a_sound_repository_has_no_findings(level: Level) -> None:
    _, repository = await sound()
    report = await check(repository, level)
    assert report.findings == ()
    assert (report.snapshots, report.packs, report.blobs) == (1, 2, 5)


async def test_an_empty_repository_has_no_findings() -> None:
    report = await check(await new_repository(MemoryStore()), Level.DATA)
    assert report.ok


async def test_every_byte_of_every_pack_is_read_at_level_data() -> None:
    store, repository = await sound()
    structure = await check(repository)
    data = await check(repository, Level.DATA)
    packs = sum(len(data) for name, data in store.contents.items() if name.startswith("data/"))
    assert data.read_bytes - structure.read_bytes == packs


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        ("keys/", "damaged-key"),
        ("config", "damaged-config"),
        ("snapshots/", "damaged-snapshot"),
        ("index/", "damaged-index"),
        ("data/", "damaged-pack"),
    ],
)
async def test_a_flipped_byte_anywhere_in_any_object_is_found_and_named(
    prefix: str, code: str
) -> None:
    store, repository = await sound()
    for name in [name for name in store.contents if name.startswith(prefix)]:
        intact = store.contents[name]
        for at in range(0, len(intact), max(len(intact) // 7, 1)):
            store.contents[name] = flipped(intact, at)
            assert (code, name) in [
                (finding.code, finding.subject)
                for finding in (await check(repository, Level.DATA)).findings
            ]
        store.contents[name] = intact


@pytest.mark.parametrize("prefix", ["snapshots/", "index/"])
async def test_an_object_under_the_name_of_another_is_found(prefix: str) -> None:
    store, repository = await sound()
    await save_backup(repository, {"more": [b"y"]})
    first, second = await store.objects(prefix)
    store.contents[first] = store.contents[second]
    codes = {(f.code, f.subject) for f in (await check(repository)).findings}
    assert (f"damaged-{prefix.rstrip('s/')}", first) in codes


async def test_a_flipped_byte_in_a_blob_names_the_blob_and_only_that() -> None:
    store, repository = await sound()
    pack = (await packs_of(repository))[BlobKind.DATA]
    name, entry = pack_name(pack.pack), pack.entries[1]
    store.contents[name] = flipped(store.contents[name], entry.offset + 20)
    assert (await check(repository)).ok
    report = await check(repository, Level.DATA)
    assert found(report) == {
        "damaged-pack": name,
        "damaged-blob": f"data blob {entry.id.hex()}",
    }
    assert len(report.findings) == 2


async def test_a_truncated_pack_is_found_by_its_size_alone() -> None:
    store, repository = await sound()
    name = pack_name((await packs_of(repository))[BlobKind.DATA].pack)
    store.contents[name] = store.contents[name][:-1]
    report = await check(repository)
    assert found(report) == {"truncated-pack": name}
    wanted = len(store.contents[name]) + 1
    assert f"{wanted - 1} bytes, wanted {wanted}" in report.findings[0].message


async def test_a_pack_cut_to_nothing_costs_its_blobs_and_no_more() -> None:
    store, repository = await sound()
    name = pack_name((await packs_of(repository))[BlobKind.DATA].pack)
    store.contents[name] = b""
    report = await check(repository, Level.DATA)
    codes = [finding.code for finding in report.findings]
    assert codes.count("damaged-blob") == 3
    assert "truncated-pack" in codes


async def test_a_missing_data_pack_is_found() -> None:
    store, repository = await sound()
    name = pack_name((await packs_of(repository))[BlobKind.DATA].pack)
    del store.contents[name]
    assert found(await check(repository, Level.DATA)) == {"missing-pack": name}


async def test_a_missing_tree_pack_names_the_snapshot_that_needs_it() -> None:
    store, repository = await sound()
    (snapshot,) = await repository.snapshots()
    name = pack_name((await packs_of(repository))[BlobKind.TREE].pack)
    del store.contents[name]
    report = await check(repository)
    assert set(found(report)) == {"missing-pack", "damaged-tree"}
    assert f"'/' in snapshot {snapshot.hex()[:8]}" in report.findings[-1].message


async def test_a_missing_index_file_leaves_blobs_that_are_missed() -> None:
    store, repository = await sound()
    (name,) = await store.objects("index/")
    del store.contents[name]
    (finding,) = (await check(repository)).findings
    assert finding.code == "missing-blob"


async def test_a_file_whose_blobs_are_missing_is_named_with_their_number() -> None:
    repository = await new_repository(MemoryStore())
    tree = encode_tree([stored_file("notes.db", [b"here", b"lost", b"gone"])])
    await save_index(
        repository,
        await save_pack(repository, BlobKind.DATA, [b"here"]),
        await save_pack(repository, BlobKind.TREE, [tree]),
    )
    await save_snapshot(repository, BlobId(digest(tree)))
    (finding,) = (await check(repository)).findings
    assert finding.code == "missing-blob"
    assert "'/notes.db' in snapshot" in finding.message
    assert f"2 of 3 blobs are in no index, first {digest(b'lost').hex()}" in finding.message


async def test_the_same_missing_tree_in_many_snapshots_is_found_once() -> None:
    repository = await new_repository(MemoryStore())
    for _ in range(3):
        await save_snapshot(repository, BlobId(bytes(32)))
    (finding,) = (await check(repository)).findings
    assert (finding.code, finding.subject) == ("missing-blob", f"tree {'00' * 32}")


@pytest.mark.parametrize(
    ("change", "code", "fact"),
    [
        (lambda node: replace(node, size=5), "wrong-size", "4 bytes, wanted 5"),
        (lambda node: replace(node, name=".."), "damaged-tree", "cannot be a name"),
        (lambda node: replace(node, name="a/b"), "damaged-tree", "cannot be a name"),
        (lambda node: replace(node, type="door", content=None), "damaged-tree", "'door'"),
    ],
)
async def test_a_node_that_makes_no_sense_is_found(
    change: Callable[[Node], Node], code: str, fact: str
) -> None:
    repository = await new_repository(MemoryStore())
    tree = encode_tree([change(stored_file("a", [b"here"]))])
    await save_index(
        repository,
        await save_pack(repository, BlobKind.DATA, [b"here"]),
        await save_pack(repository, BlobKind.TREE, [tree]),
    )
    await save_snapshot(repository, BlobId(digest(tree)))
    (finding,) = (await check(repository)).findings
    assert finding.code == code
    assert fact in finding.message


async def test_what_is_no_tree_is_found_and_the_rest_still_checked() -> None:
    repository = await new_repository(MemoryStore())
    good = encode_tree([stored_file("a", [b"lost"])])
    pack = await save_pack(repository, BlobKind.TREE, [b"not a tree", good])
    await save_index(repository, pack)
    for entry in pack.entries:
        await save_snapshot(repository, entry.id)
    report = await check(repository)
    assert {finding.code for finding in report.findings} == {"damaged-tree", "missing-blob"}


async def test_trees_nested_deeper_than_any_stack_are_walked() -> None:
    repository = await new_repository(MemoryStore())
    trees, depth = [encode_tree([])], 3000
    for _ in range(depth):
        below = BlobId(digest(trees[-1]))
        trees.append(encode_tree([dir_node("d", below, mode=0o755, mtime_ns=0)]))
    await save_index(repository, await save_pack(repository, BlobKind.TREE, trees))
    await save_snapshot(repository, BlobId(digest(trees[-1])))
    report = await check(repository)
    assert report.ok
    assert report.blobs == depth + 1


async def test_a_tree_in_many_snapshots_is_read_once() -> None:
    _, repository = await sound()
    once = await check(repository)
    (snapshot,) = (await repository.snapshots()).values()
    sizes = 0
    for _ in range(5):
        name = f"snapshots/{(await repository.add_snapshot(snapshot)).hex()}"
        sizes += await repository.store.size(name)
    assert (await check(repository)).read_bytes == once.read_bytes + sizes


async def test_a_header_that_disagrees_with_the_index_is_found() -> None:
    repository = await new_repository(MemoryStore())
    data, listing = make_pack(repository, BlobKind.DATA, [b"one", b"two"])
    lying = [PackEntry(e.kind, BlobId(digest(b"?")), *e[2:]) for e in listing.entries]
    findings = examine_pack(repository.key, listing.pack, lying, data)
    assert [finding.code for finding in findings] == ["damaged-index"] + ["damaged-blob"] * 2


async def test_a_wiped_pack_names_some_of_its_blobs_and_counts_the_rest() -> None:
    repository = await new_repository(MemoryStore())
    data, listing = make_pack(repository, BlobKind.DATA, [bytes([n]) for n in range(50)])
    findings = examine_pack(repository.key, listing.pack, listing.entries, bytes(len(data)))
    assert len(findings) == 2 + 20 + 1
    assert "and 30 more blobs" in findings[-1].message


async def test_packs_that_no_index_lists_are_no_finding() -> None:
    _, repository = await sound()
    await save_pack(repository, BlobKind.DATA, [b"left by a backup that was interrupted"])
    assert (await check(repository, Level.DATA)).ok


async def test_two_damages_are_both_found() -> None:
    store, repository = await sound()
    packs = await packs_of(repository)
    names = [pack_name(packs[kind].pack) for kind in BlobKind]
    for name in names:
        store.contents[name] = flipped(store.contents[name], 3)
    report = await check(repository, Level.DATA)
    assert {f.subject for f in report.findings if f.code == "damaged-pack"} == set(names)


async def test_progress_never_falls_and_ends_at_its_total() -> None:
    _, repository = await sound()
    reports: list[Progress] = []

    async def listen(progress: Progress) -> None:
        reports.append(progress)

    await check(repository, Level.DATA, listen)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total > 0
    assert {report.stage for report in reports} == {"check"}


async def test_a_cancelled_check_stops_between_packs() -> None:
    _, repository = await sound()
    for n in range(3):
        await save_backup(repository, {"more": [bytes([n])]})
    examined: list[PackId] = []
    with anyio.CancelScope() as scope:

        async def examine(pack: PackId, _: object) -> tuple[()]:
            examined.append(pack)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
            return ()

        await check(repository, Level.DATA, examine=examine)
    assert scope.cancelled_caught
    assert len(examined) <= 2  # as many as are examined at once


async def test_an_index_file_that_is_damaged_stops_reading_and_names_itself() -> None:
    store, _ = await sound()
    (name,) = await store.objects("index/")
    store.contents[name] = flipped(store.contents[name], 40)
    repository = await open_repository(
        store, PASSWORD, now=FrozenClock(), hostname="here", username="tester"
    )
    with pytest.raises(IntegrityError, match=name):
        await repository.load_index()


async def test_reading_a_damaged_object_names_it() -> None:
    store, repository = await sound()
    packs = await packs_of(repository)
    pack = packs[BlobKind.DATA]
    store.contents[pack_name(pack.pack)] = bytes(len(store.contents[pack_name(pack.pack)]))
    with pytest.raises(IntegrityError, match=f"{pack_name(pack.pack)}: data blob"):
        await repository.load_blob(BlobKind.DATA, pack.entries[0].id)
    (name,) = await store.objects("snapshots/")
    store.contents[name] = flipped(store.contents[name], 20)
    fresh = await open_repository(
        store, PASSWORD, now=FrozenClock(), hostname="here", username="tester"
    )
    with pytest.raises(IntegrityError, match=name):
        await fresh.snapshots()
