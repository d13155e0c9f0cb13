"""Trees: from the paths of a capture to the tree blobs of a snapshot.

Node metadata is kept stable on purpose: times are the logical time of the content's last change,
and there is no inode, device or link count; so an unchanged file's tree is the same blob again,
and its chunk list (35 bytes a chunk) is not stored once more with every backup.
"""

from collections.abc import Iterable

from msgspec import Struct, field
from msgspec.structs import replace

from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId
from mcp_backup.format.tree import Node, dir_node, encode_tree
from mcp_backup.repository.writer import Writer

_DIRECTORY_MODE = 0o700  # of directories that exist only in the snapshot


class Directory(Struct):
    """A directory being put together. `node` is its own metadata, if it was captured."""

    node: Node | None = None
    children: dict[str, "Node | Directory"] = field(default_factory=dict)

    def add(self, path: str, child: "Node | Directory") -> None:
        """Put a file, link or directory at a relative path, making directories on the way."""
        *parents, name = path.split("/")
        place = self
        for parent in parents:
            step = place.children.setdefault(parent, Directory())
            assert isinstance(step, Directory), path
            place = step
        standing = place.children.get(name)
        if isinstance(standing, Directory) and isinstance(child, Directory):
            standing.node = child.node
        else:
            place.children[name] = child

    def latest(self) -> int:
        """Return the latest mtime below, in nanoseconds; 0 for an empty directory."""
        if self.node is not None:
            return self.node.mtime_ns
        return max((_mtime(child) for child in self.children.values()), default=0)


def _mtime(child: Node | Directory) -> int:
    return child.latest() if isinstance(child, Directory) else child.mtime_ns


def keep_times(root: Directory, before: Iterable[Node]) -> None:
    """Give files whose content is as before the times they had before.

    A checkpoint moves a database's time without changing a byte of its image; the same node
    makes the same tree blob, and its chunk list is not stored again.
    """
    for was in before:
        now = root.children.get(was.name)
        if isinstance(now, Node) and (now.content, now.size) == (was.content, was.size):
            root.children[was.name] = replace(
                now, mtime_ns=was.mtime_ns, atime_ns=was.atime_ns, ctime_ns=was.ctime_ns
            )


async def save_directory(directory: Directory, writer: Writer) -> BlobId:
    """Save the directory's tree, deepest first; return the blob that lists it."""
    nodes = [await _node(name, child, writer) for name, child in directory.children.items()]
    return await writer.save(BlobKind.TREE, encode_tree(nodes))


async def _node(name: str, child: Node | Directory, writer: Writer) -> Node:
    if not isinstance(child, Directory):
        return replace(child, name=name)
    subtree = await save_directory(child, writer)
    if child.node is not None:
        return replace(child.node, name=name, subtree=subtree)
    return dir_node(name, subtree, mode=_DIRECTORY_MODE, mtime_ns=child.latest())
