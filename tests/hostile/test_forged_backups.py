"""Backups by construction that mean harm: refused by name, and nothing outside was touched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.tree import Node, encode_tree, file_node, symlink_node
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.restore.stager import in_bulk, stage
from mcp_backup.verbs import CreateRequest
from tests.hostile.conftest import Genuine
from tests.hostile.forging import Raw, below_root, document_of, forged, refusals, save
from tests.repository.packing import MTIME, stored_file

READERS = ("verify restore", "verify data", "tar", "sql", "scratch", "restore")


@pytest.mark.parametrize("tree", ["../../../../victim", "/victim", "databases/../../victim", "x"])
async def test_a_manifest_cannot_say_where_its_files_go(
    genuine: Genuine, tmp_path: Path, tree: str
) -> None:
    """The tree it names does exist, name by name, in the snapshot."""
    victim = tree if not tree.startswith("/") else str(tmp_path / "victim")
    document = await document_of(genuine.engine.repository, genuine.backup)
    (record,) = [each for each in document["sources"] if each["name"] == "notes"]
    genuine_tree = (await genuine.engine.catalog.tree(genuine.backup, record["tree"])).subtree
    assert genuine_tree is not None
    record["tree"] = victim
    trees: list[bytes] = []
    node = Node(name="", type="dir", mode=0o700, mtime_ns=MTIME, subtree=genuine_tree)
    for part in reversed([part for part in victim.split("/") if part]):
        node = replace(node, name=part)
        encoded = encode_tree([node])
        trees.append(encoded)
        node = below_root("", encoded)
    await save(genuine.engine.repository, *trees[:-1] or trees)
    top = json.loads(trees[-1])["nodes"][0]["name"]
    outermost = await genuine.engine.repository.load_tree(
        await save(genuine.engine.repository, trees[-1])
    )
    backup_id = await forged(
        genuine.engine.repository,
        genuine.backup,
        manifest=json.dumps(document).encode(),
        nodes=tuple(each for each in outermost if each.name == top and top != "databases"),
    )
    refused = await refusals(genuine.engine, backup_id, genuine.out, *READERS)
    assert set(refused) == set(READERS)
    assert not (tmp_path / "victim").exists()


async def test_a_manifest_cannot_name_a_directory_to_be_removed(genuine: Genuine) -> None:
    """`verify --level restore` works in a directory of its own, and removes it."""
    document = await document_of(genuine.engine.repository, genuine.backup)
    (record,) = [each for each in document["sources"] if each["name"] == "notes"]
    project = genuine.system.project
    for name in ("../../../../../project", str(project), "..", "a/b", "", "nul\0"):
        record["name"] = name
        data = json.dumps(document).encode()
        backup_id = await forged(genuine.engine.repository, genuine.backup, manifest=data)
        refused = await refusals(genuine.engine, backup_id, genuine.out, "verify restore")
        assert "a source is named" in refused["verify restore"]
        assert (project / ".env").exists()


def unlike(changes: Raw) -> bytes:
    """A tree of one file with members that our own encoder would not write."""
    (node,) = json.loads(encode_tree([stored_file("notes.db", [b"x"])]))["nodes"]
    return (json.dumps({"nodes": [node | changes]}) + "\n").encode()


def doubled() -> bytes:
    """A link, and a directory of its name, by which a file would be written through the link."""
    inner = encode_tree([stored_file("planted", [b"x"])])
    link = json.loads(encode_tree([symlink_node("door", "/tmp", mtime_ns=MTIME)]))["nodes"]  # noqa: S108
    return (json.dumps({"nodes": link + json.loads(inner)["nodes"] * 2}) + "\n").encode()


TREES: dict[str, Callable[[], bytes]] = {
    "not a plain file name: slash": lambda: unlike({"name": "../../x"}),
    "not a plain file name: dots": lambda: unlike({"name": ".."}),
    "not a plain file name: absolute": lambda: unlike({"name": "/etc/x"}),
    "not a plain file name: nul": lambda: unlike({"name": "a\\u0000b"}),
    "a name comes twice": doubled,
    "there is a dev in it": lambda: unlike({"type": "dev", "content": None, "device": 2049}),
    "there is a chardev in it": lambda: unlike({"type": "chardev", "content": None}),
    "there is a fifo in it": lambda: unlike({"type": "fifo", "content": None}),
    "there is a hardlink in it": lambda: unlike({"type": "hardlink", "content": None}),
    "the snapshot says 7": lambda: unlike({"size": 7}),
    "are free": lambda: unlike({"size": 1 << 62}),
    "a link has no target": lambda: unlike({"type": "symlink", "content": None}),
    "wanted an integer": lambda: unlike({"size": -1}),
    "is in no index": lambda: unlike({"content": ["00" * 32]}),
    "is a directory without subtree": lambda: unlike({"type": "dir", "content": None}),
    "nested|recursion": lambda: b'{"nodes":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


async def test_a_hostile_tree_is_refused_by_every_way_out(genuine: Genuine) -> None:
    repository, ways = genuine.engine.repository, ("scratch", "verify restore", "tar")
    for number, (why, tree) in enumerate(TREES.items()):
        some = ways if number == 0 else (ways[number % len(ways)],)  # they share what refuses
        backup_id = await forged(repository, genuine.backup, source=tree(), data=(b"x",))
        refused = await refusals(genuine.engine, backup_id, genuine.out, *some)
        assert set(refused) == set(some), why
        for told in refused.values():
            assert any(word in told for word in why.partition(":")[0].split("|")), (why, told)
        assert not any((genuine.system.root / "state/scratch").iterdir())
        await repository.store.delete(f"snapshots/{backup_id}")


async def test_set_id_bits_and_foreign_owners_do_not_reach_live_data(genuine: Genuine) -> None:
    """A file of settings that would come back as a program of root's."""
    tree = unlike({"name": ".env", "mode": 0o777 | 1 << 23 | 1 << 22 | 1 << 20})
    repository = genuine.engine.repository
    await save(repository, tree, data=(b"x",))
    target = genuine.out / "staged"
    async with sealing_pool(repository.key) as pool:
        await stage(repository, BlobId(digest(tree)), target, in_bulk(repository, pool))
    assert (target / ".env").stat().st_mode & 0o7000 == 0


async def test_a_file_that_unfolds_beyond_its_size_fills_no_disk(genuine: Genuine) -> None:
    """A megabyte stored once, listed ten thousand times, and said to be of seven bytes."""
    block = bytes(1 << 20)
    node = file_node("notes.db", [BlobId(digest(block))] * 10_000, 7, mode=0o600, mtime_ns=MTIME)
    backup_id = await forged(
        genuine.engine.repository, genuine.backup, source=encode_tree([node]), data=(block,)
    )
    refused = await refusals(genuine.engine, backup_id, genuine.out, "scratch", "verify restore")
    assert all("is 10485760000 bytes, and the snapshot says 7" in told for told in refused.values())
    assert len(refused) == 2


async def test_a_backup_of_ours_goes_on_after_a_forged_one(genuine: Genuine) -> None:
    """Sound change detection looks at the newest backup, whoever wrote it."""
    document = await document_of(genuine.engine.repository, genuine.backup)
    for record in document["sources"]:
        record["evidence"]["facts"] = {"entries": 7, "tables": [], "documents": None}
        record["chunk_size"] = 1 << 40
    await forged(
        genuine.engine.repository,
        genuine.backup,
        manifest=json.dumps(document).encode(),
        snapshot=lambda raw: raw.update(time="2030-01-01T00:00:00Z"),
    )
    report = await genuine.engine.create(CreateRequest())
    assert (report.status, report.verification) == ("completed", "passed")
    assert not (await refusals(genuine.engine, report.snapshot_id, genuine.out, "verify restore"))


ODD: list[Any] = [None, -1, 1 << 70, 1e300, "", "x", "\ud800", [], {}, [[]], True, "/", "..", "\0"]


def paths_in(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    found = []
    inner = value.items() if isinstance(value, dict) else ()
    for key, below in enumerate(value) if isinstance(value, list) else inner:
        found += [(*prefix, key), *paths_in(below, (*prefix, key))]
    return found


def changed(document: Raw, path: tuple[Any, ...], value: Any) -> bytes:
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(copy).encode()


async def test_a_manifest_with_any_member_exchanged_is_read_or_refused(genuine: Genuine) -> None:
    """Every member in turn gets an odd value; all verbs that read manifests meet it."""
    document = await document_of(genuine.engine.repository, genuine.backup)
    document["sources"] = document["sources"][:1] + document["sources"][-1:]
    places = [path for path in paths_in(document) if path[-1] != "message"]
    verbs = ("list", "history", "status", "forget")
    repository = genuine.engine.repository
    for number, path in list(enumerate(places))[::2]:
        data = changed(document, path, ODD[number % len(ODD)])
        backup_id = await forged(repository, genuine.backup, manifest=data)
        await refusals(genuine.engine, backup_id, genuine.out, *verbs[number // 2 % 4 :][:1])
        await repository.store.delete(f"snapshots/{backup_id}")


async def test_a_snapshot_with_any_member_exchanged_is_read_or_refused(genuine: Genuine) -> None:
    document = await snapshot_of(genuine)
    repository = genuine.engine.repository
    times = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z"]
    places = [(path, ODD[n % len(ODD)]) for n, path in enumerate(paths_in(document))]
    places += [(("time",), time) for time in times]
    for path, value in places:
        identity = await repository.save_unpacked("snapshots", changed(document, path, value))
        verbs = ("list", "status", "forget", "doctor") if path == ("time",) else ("list",)
        await refusals(genuine.engine, identity.hex(), genuine.out, *verbs)
        await repository.store.delete(f"snapshots/{identity.hex()}")


async def snapshot_of(genuine: Genuine) -> Raw:
    document: Raw = json.loads(
        await genuine.engine.repository.load_unpacked("snapshots", genuine.backup.id)
    )
    return document


async def test_evidence_that_makes_no_sense_is_a_finding(genuine: Genuine) -> None:
    document = await document_of(genuine.engine.repository, genuine.backup)
    facts: list[Any] = [
        {"entries": [], "tables": {"notes": "many"}},
        {"entries": {".env": 7}, "tables": 7},
        {"entries": {".env": ["file", "rwx", 0, 0]}, "foreign_key_violations": "x"},
        {"entries": {".env": ["file", "0600", "root", 0]}, "schema": []},
        {"entries": {"\ud800": ["file", "0600", 0, 0]}, "user_version": {}},
    ]
    for odd in facts:
        for record in document["sources"]:
            record["evidence"]["facts"] = odd
        data = json.dumps(document).encode()
        backup_id = await forged(genuine.engine.repository, genuine.backup, manifest=data)
        refused = await refusals(genuine.engine, backup_id, genuine.out, "verify restore")
        assert refused["verify restore"], odd
