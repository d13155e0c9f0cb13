"""The stager: one tree of a snapshot, rebuilt in a directory of ours, trusting nothing in it.

A repository may have been written by somebody else, so a tree is judged before and while it is
rebuilt: every name is one plain name, no name comes twice, there are files, directories and links
and nothing else, sizes are what the content adds up to, depth and number are bounded (a tree may
hold the same subtree many times, so a small repository can describe an endless one). Links are
made last, so that no path written through them can lead elsewhere; the directory is new and ours
alone. Set-user-id, set-group-id and sticky bits are not brought back.

Nothing here touches live data. What a failure or a cancel leaves in the directory is the caller's
to remove.
"""

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from mcp_backup.errors import RestoreError, StagingRejected
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId
from mcp_backup.format.tree import Node, is_safe_name
from mcp_backup.progress import Listener, nobody
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.reader import Goal, fill_file
from mcp_backup.repository.repository import Repository

_ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space there, or raise its limits"
    ),
    errno.EIO: "Look whether the disk that it is on is failing,",
}

# Content into an empty file → its bytes. Where these are not as many as announced, last, at most
# one blob more than that is written: a small repository can hold a file of any size.
Write = Callable[[Sequence[BlobId], Path, int], Awaitable[int]]


class Limits(Struct, frozen=True):
    """How large a tree may be: entries in all, and directories within directories."""

    entries: int = 1_000_000
    depth: int = 128


class Survey(Struct, frozen=True):
    """What a tree holds: entries, bytes of its files, and every path, parents first."""

    size: int
    paths: tuple[str, ...]


class _Item(Struct, frozen=True):
    path: str
    node: Node


def in_bulk(
    repository: Repository,
    pool: SealingPool,
    listener: Listener = nobody,
    local: Path | None = None,
) -> Write:
    """Return a writer for files of any size, which works in the pool.

    `local` is a file that may hold much of what is to be written, like the live database.
    """

    async def write(content: Sequence[BlobId], path: Path, size: int) -> int:
        return await fill_file(repository, pool, content, Goal(path, listener, size, local))

    return write


def one_by_one(repository: Repository) -> Write:
    """Return a writer that needs no pool: blob after blob, for small things and for tests."""

    async def write(content: Sequence[BlobId], path: Path, size: int) -> int:
        written = 0
        for identity in content:
            blob = await repository.load_blob(BlobKind.DATA, identity)
            await to_thread.run_sync(_append, path, blob)
            written += len(blob)
            if written > size:
                break
        return written

    return write


async def subtree(repository: Repository, root: BlobId, path: str) -> BlobId:
    """Return the tree at `path` ("databases/notes") below the tree `root`; "" is `root` itself.

    Raises:
        StagingRejected: there is no directory at `path`.
    """
    for part in filter(None, path.split("/")):
        nodes = [node for node in await repository.load_tree(root) if node.name == part]
        if len(nodes) != 1 or nodes[0].type != "dir" or nodes[0].subtree is None:
            raise StagingRejected(
                f"the snapshot has no directory {path!r}",
                hint="Run `mcp-backup check`, and use another backup. Nothing live was touched.",
            )
        root = nodes[0].subtree
    return root


async def survey(repository: Repository, tree: BlobId, limits: Limits | None = None) -> Survey:
    """Judge a tree without writing anything, and add up what it holds.

    Raises:
        StagingRejected: the tree is hostile, or larger than the limits.
        IntegrityError: part of it is missing or damaged.
    """
    size, paths = 0, []
    for item in await _items(repository, tree, limits or Limits()):
        size += item.node.size if item.node.type == "file" else 0
        paths.append(item.path)
    return Survey(size, tuple(paths))


async def stage(
    repository: Repository,
    tree: BlobId,
    directory: Path,
    write: Write,
    limits: Limits | None = None,
) -> int:
    """Rebuild `tree` in `directory`, which must not exist; return the bytes of its files.

    Nothing is made durable here (`journal.fsync_tree` does).

    Raises:
        StagingRejected: the tree is hostile, or its sizes are not what its content adds up to.
        IntegrityError: part of it is missing or damaged.
        RestoreError: the directory cannot be written; the disk is full, for one.
    """
    items = await _items(repository, tree, limits or Limits())
    size = sum(item.node.size for item in items if item.node.type == "file")
    with worded(directory):
        await to_thread.run_sync(_make_room, directory, size)
        await to_thread.run_sync(_make_directories, directory, items)
        for item in items:
            if item.node.type == "file":
                await _stage_file(item, directory, write)
        await to_thread.run_sync(_finish, directory, items)
    return size


async def _items(repository: Repository, root: BlobId, limits: Limits) -> list[_Item]:
    """Return everything below `root`, judged, parents before what is in them."""
    items: list[_Item] = []
    waiting: list[tuple[str, int, BlobId]] = [("", 1, root)]
    while waiting:
        prefix, depth, tree = waiting.pop()
        if depth > limits.depth:
            raise _rejected(f"directories lie more than {limits.depth} deep", prefix)
        names: set[str] = set()
        for node in await repository.load_tree(tree):
            _judge(node, prefix, names)
            names.add(node.name)
            items.append(_Item(prefix + node.name, node))
            if node.subtree is not None and node.type == "dir":
                waiting.append((f"{prefix}{node.name}/", depth + 1, node.subtree))
        if len(items) > limits.entries:
            raise _rejected(f"it holds more than {limits.entries} entries", prefix)
    return items


def _judge(node: Node, prefix: str, names: set[str]) -> None:
    path = prefix + node.name
    if not is_safe_name(node.name):
        raise _rejected("a name in it is not a plain file name", path)
    if node.name in names:
        raise _rejected("a name comes twice", path)
    if node.type not in ("file", "dir", "symlink"):
        raise _rejected(f"there is a {node.type} in it, and only files and links come back", path)
    if node.type == "file" and (node.content is None or node.size < 0):
        raise _rejected("a file has no content", path)
    if node.type == "dir" and node.subtree is None:
        raise _rejected("a directory has no tree", path)
    if node.type == "symlink" and (not node.link_target or "\0" in node.link_target):
        raise _rejected("a link has no target", path)


def _rejected(why: str, path: str) -> StagingRejected:
    return StagingRejected(
        f"the tree is refused: {why}, at {path!r:.200}",
        hint="The repository holds something mcp-backup did not write; `restic restore` may bring "
        "it back to a place of its own. Nothing live was touched.",
    )


async def _stage_file(item: _Item, directory: Path, write: Write) -> None:
    path = directory / item.path
    await to_thread.run_sync(_create, path)
    content = item.node.content or ()
    written = await write(content, path, item.node.size)
    if written != item.node.size:
        raise StagingRejected(
            f"{item.path!r:.200} is {written} bytes, and the snapshot says {item.node.size}",
            hint="Run `mcp-backup check --level data`, and use another backup. "
            "Nothing live was touched.",
        )


def _make_room(directory: Path, size: int) -> None:
    directory.mkdir(mode=0o700, parents=True)
    free = os.statvfs(directory)
    available = free.f_bavail * free.f_frsize
    if available < size:
        raise RestoreError(
            f"{size} bytes are to be staged in {directory}, and {available} are free",
            hint="Free some space there and try again. Nothing live was touched.",
        )


def _make_directories(directory: Path, items: Sequence[_Item]) -> None:
    for item in items:
        if item.node.type == "dir":
            (directory / item.path).mkdir(mode=0o700)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


def _append(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "wb") as file:
        file.write(data)


def _finish(directory: Path, items: Sequence[_Item]) -> None:
    """Make the links, then give everything its owner, mode and time, innermost first."""
    for item in items:
        if item.node.type == "symlink":
            os.symlink(item.node.link_target, directory / item.path)
    for item in reversed(items):
        path, node = directory / item.path, item.node
        if os.geteuid() == 0:
            os.chown(path, node.uid, node.gid, follow_symlinks=False)
        if node.type != "symlink":
            os.chmod(path, stat.S_IMODE(node.mode) & 0o777)
        os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


@contextmanager
def worded(directory: Path, doing: str = "staging") -> Iterator[None]:
    """Say in our words what the disk refuses of what is staged, or kept, in `directory`.

    Raises:
        RestoreError: it refuses something.
    """
    try:
        yield
    except OSError as error:
        raise RestoreError(
            f"{doing} in {directory}: {error.strerror or error}",
            hint=f"{_ADVICE.get(error.errno or 0, 'Make it writable')} and try again. "
            "Nothing live was touched.",
        ) from error
