"""Staging: what comes out is what went in, and a hostile tree gets nowhere."""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from mcp_backup.errors import IntegrityError, RestoreError, StagingRejected
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.tree import Node, dir_node, encode_tree, symlink_node
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.repository.repository import Repository
from mcp_backup.restore.stager import Limits, in_bulk, one_by_one, stage, subtree, survey
from mcp_backup.store.memory import MemoryStore
from tests.repository.packing import MTIME, new_repository, save_index, save_pack, stored_file

CHUNKS = [b"first " * 1000, b"second" * 900]


async def saved(repository: Repository, *trees: bytes) -> BlobId:
    """Save trees, and the chunks that files in them have; the last tree is returned."""
    data = await save_pack(repository, BlobKind.DATA, CHUNKS)
    listing = await save_pack(repository, BlobKind.TREE, trees)
    await save_index(repository, data, listing)
    return BlobId(digest(trees[-1]))


def tree(*nodes: Node) -> bytes:
    return encode_tree(nodes)


def below(name: str, encoded: bytes, mode: int = 0o755) -> Node:
    return dir_node(name, BlobId(digest(encoded)), mode=mode, mtime_ns=MTIME)


def raw(nodes: Sequence[dict[str, object]]) -> bytes:
    """A tree that our own encoder would refuse to write."""
    return (json.dumps({"nodes": nodes}, separators=(",", ":")) + "\n").encode()


async def test_a_tree_is_rebuilt_with_contents_modes_times_and_links(tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore())
    inner = tree(replace(stored_file("secret.env", CHUNKS[:1]), mode=0o600))
    root = await saved(
        repository,
        inner,
        tree(
            below("sub", inner, 0o750),
            stored_file("both", CHUNKS),
            stored_file("empty", []),
            symlink_node("link", "sub/secret.env", mtime_ns=MTIME),
        ),
    )
    target = tmp_path / "out"
    size = await stage(repository, root, target, one_by_one(repository))
    assert size == len(CHUNKS[0]) * 2 + len(CHUNKS[1])
    assert (target / "both").read_bytes() == b"".join(CHUNKS)
    assert (target / "empty").read_bytes() == b""
    assert (target / "sub" / "secret.env").read_bytes() == CHUNKS[0]
    assert stat.S_IMODE((target / "sub" / "secret.env").stat().st_mode) == 0o600
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o750
    assert (target / "sub").stat().st_mtime_ns == MTIME
    assert (target / "link").readlink() == Path("sub/secret.env")


async def test_the_bulk_writer_writes_the_same(tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(stored_file("both", CHUNKS), stored_file("empty", [])))
    async with sealing_pool(repository.key) as pool:
        await stage(repository, root, tmp_path / "out", in_bulk(repository, pool))
    assert (tmp_path / "out" / "both").read_bytes() == b"".join(CHUNKS)
    assert (tmp_path / "out" / "empty").read_bytes() == b""


async def test_set_id_and_sticky_bits_do_not_come_back(tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(replace(stored_file("tool", CHUNKS), mode=0o7755)))
    await stage(repository, root, tmp_path / "out", one_by_one(repository))
    assert stat.S_IMODE((tmp_path / "out" / "tool").stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc/passwd", "../../x", "nul\0"])
async def test_a_name_that_is_more_than_a_name_is_refused(tmp_path: Path, name: str) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(replace(stored_file("x", CHUNKS), name=name)))
    with pytest.raises(StagingRejected, match="not a plain file name"):
        await stage(repository, root, tmp_path / "out", one_by_one(repository))
    assert not (tmp_path / "out").exists()


async def test_a_link_cannot_be_followed_by_a_file_of_its_name(tmp_path: Path) -> None:
    """The classic: first a link to elsewhere, then a directory of that name with a file in it."""
    repository = await new_repository(MemoryStore())
    outside = tmp_path / "outside"
    outside.mkdir()
    inner = tree(stored_file("planted", CHUNKS))
    link = symlink_node("door", str(outside), mtime_ns=MTIME)
    one, other = json.loads(tree(link))["nodes"][0], json.loads(tree(below("door", inner)))
    root = await saved(repository, inner, raw([one, other["nodes"][0]]))
    with pytest.raises(StagingRejected, match="comes twice"):
        await stage(repository, root, tmp_path / "out", one_by_one(repository))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["dev", "chardev", "fifo", "socket", "irregular"])
async def test_what_is_neither_file_nor_directory_nor_link_is_refused(
    tmp_path: Path, kind: str
) -> None:
    repository = await new_repository(MemoryStore())
    node = Node(name="thing", type=kind, mode=0o600, mtime_ns=MTIME)
    root = await saved(repository, tree(node))
    with pytest.raises(StagingRejected, match=kind):
        await survey(repository, root)


async def test_a_size_that_lies_is_refused(tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(replace(stored_file("both", CHUNKS), size=7)))
    with pytest.raises(StagingRejected, match="bytes, and the snapshot says 7"):
        await stage(repository, root, tmp_path / "out", one_by_one(repository))


async def test_a_size_beyond_the_disk_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(replace(stored_file("both", CHUNKS), size=1 << 60)))
    with pytest.raises(RestoreError, match="are free"):
        await stage(repository, root, tmp_path / "out", one_by_one(repository))
    assert list((tmp_path / "out").iterdir()) == []


async def test_a_small_tree_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    """Each level holds the one below twice: 40 trees that describe a million million files."""
    repository = await new_repository(MemoryStore())
    levels = [tree(stored_file("leaf", []))]
    for _ in range(40):
        levels.append(tree(below("a", levels[-1]), below("b", levels[-1])))
    root = await saved(repository, *levels)
    with pytest.raises(StagingRejected, match="more than 5000 entries"):
        await survey(repository, root, Limits(entries=5000))


async def test_a_tree_that_is_too_deep_is_refused() -> None:
    repository = await new_repository(MemoryStore())
    levels = [tree(stored_file("leaf", []))]
    for _ in range(200):
        levels.append(tree(below("down", levels[-1])))
    root = await saved(repository, *levels)
    with pytest.raises(StagingRejected, match="128 deep"):
        await survey(repository, root)


async def test_a_missing_blob_is_an_integrity_error(tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(stored_file("gone", [b"never stored"])))
    with pytest.raises(IntegrityError):
        await stage(repository, root, tmp_path / "out", one_by_one(repository))


async def test_only_a_directory_that_is_there_can_be_entered() -> None:
    repository = await new_repository(MemoryStore())
    inner = tree(stored_file("notes.db", CHUNKS))
    root = await saved(repository, inner, tree(below("databases", inner), stored_file("x", CHUNKS)))
    assert await subtree(repository, root, "databases") == digest(inner)
    for path in ("databases/notes.db", "config", "x", "databases/../databases"):
        with pytest.raises(StagingRejected, match="has no directory"):
            await subtree(repository, root, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
async def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    repository = await new_repository(MemoryStore())
    root = await saved(repository, tree(stored_file("both", CHUNKS)))
    tmp_path.chmod(0o500)
    with pytest.raises(RestoreError, match=str(tmp_path)):
        await stage(repository, root, tmp_path / "out", one_by_one(repository))
