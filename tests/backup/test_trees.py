"""Trees: the same content is the same blob, whenever and in whatever order it was captured."""

import pytest

from mcp_backup.backup.trees import Directory, save_directory
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.tree import Node, dir_node, file_node
from mcp_backup.verbs import BackupType, CreateRequest
from tests.repository.pooling import Bench, bench
from tests.system import System, change, make_system

MTIME = 1_700_000_000_123_456_789
BLOB = BlobId(digest(b"content"))


def leaf(name: str, mtime_ns: int = MTIME) -> Node:
    return file_node(name, (BLOB,), 7, mode=0o600, mtime_ns=mtime_ns)


def captured(name: str) -> Node:
    """A directory as a capture tells it: its own metadata, what is in it comes later."""
    return dir_node(name, None, mode=0o755, mtime_ns=MTIME)  # type: ignore[arg-type]


async def saved(it: Bench, *paths: tuple[str, "Node | Directory"]) -> BlobId:
    root = Directory()
    for path, child in paths:
        root.add(path, child)
    async with it.writer() as writer:
        return await save_directory(root, writer)


async def test_a_tree_does_not_depend_on_the_order_of_the_walk() -> None:
    paths = [(path, leaf(path.rpartition("/")[2])) for path in ("b/c", "a", "b/a/x", "Z", "b.c")]
    async with bench() as it:
        assert await saved(it, *paths) == await saved(it, *reversed(paths))


async def test_the_same_tree_twice_is_stored_once() -> None:
    async with bench() as it:
        await saved(it, ("one/a", leaf("a")), ("two/a", leaf("a")))
        index = await it.repository.load_index()
        trees = [e for p in index.packs() for e in index.entries(p) if e.kind is BlobKind.TREE]
    assert len(trees) == 2  # the root, and what is below both


async def test_a_directory_that_was_captured_after_its_files_keeps_them_and_its_mode() -> None:
    async with bench() as it:
        root = await saved(it, ("d/a", leaf("a")), ("d", Directory(captured("d"))))
        (node,) = await it.repository.load_tree(root)
        assert (node.name, node.mode, node.mtime_ns) == ("d", 0o755, MTIME)
        assert node.subtree is not None
        assert [child.name for child in await it.repository.load_tree(node.subtree)] == ["a"]


async def test_a_directory_that_exists_only_in_the_snapshot_is_as_old_as_what_is_in_it() -> None:
    async with bench() as it:
        root = await saved(it, ("d/old", leaf("old", MTIME - 5)), ("d/e/new", leaf("new", MTIME)))
        (node,) = await it.repository.load_tree(root)
    assert (node.mtime_ns, node.mode) == (MTIME, 0o700)


async def test_an_empty_directory_is_kept() -> None:
    async with bench() as it:
        root = await saved(it, ("d", Directory(captured("d"))))
        (node,) = await it.repository.load_tree(root)
        assert node.subtree is not None
        assert await it.repository.load_tree(node.subtree) == []


async def test_nodes_hold_no_inode_device_or_link_count_that_would_change_by_itself() -> None:
    async with bench() as it:
        (node,) = await it.repository.load_tree(await saved(it, ("a", leaf("a"))))
    assert (node.inode, node.device_id, node.links) == (0, 0, 0)
    assert node.atime_ns == node.ctime_ns == node.mtime_ns


@pytest.fixture
async def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return await make_system(tmp_path_factory.mktemp("trees") / "system", rows=50)


async def test_sources_that_did_not_change_have_the_same_trees_in_every_backup(
    system: System,
) -> None:
    """Also when read whole again: then nothing but the manifest and the trees above are new."""
    async with system.engine() as engine:

        async def trees(name: str) -> tuple[BlobId | None, ...]:
            backup = await engine.catalog.find(name)
            nodes = [
                await engine.catalog.tree(backup, path)
                for path in ("databases/notes", "databases/tasks", "config/project")
            ]
            return tuple(node.subtree for node in nodes)

        first = await engine.create(CreateRequest(BackupType.FULL, verify=False))
        second = await engine.create(CreateRequest(BackupType.FULL, verify=False))
        assert await trees(first.backup_id) == await trees(second.backup_id)
        change(system.notes)
        third = await engine.create(CreateRequest(BackupType.FULL, verify=False))
        notes, *others = await trees(third.backup_id)
        before, *others_before = await trees(first.backup_id)
        assert others == others_before
        assert notes != before
    assert {outcome.outcome for outcome in second.outcomes} == {"stored"}
    assert sum(outcome.added_bytes for outcome in second.outcomes) == 0
