"""What snapshots refer to: every tree and blob that is reached from some roots, a bit for each."""

from array import array
from collections.abc import Mapping, Sequence

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, SnapshotId, short
from mcp_backup.format.tree import Node
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.repository.blob_index import BlobIndex
from mcp_backup.repository.concurrency import aside, for_each
from mcp_backup.repository.repository import Repository

_TREES_AT_ONCE = 8
_ID_BYTES = 32


class Marks:
    """A bit for each number below `size`: the blobs of an index, by their positions.

    Marking from two threads at once loses marks.
    """

    def __init__(self, size: int) -> None:
        """Begin with nothing marked."""
        self._bits = bytearray(size // 8 + 1)

    def mark(self, number: int) -> bool:
        """Mark a number, and tell whether it was not marked before."""
        byte, bit = number >> 3, 1 << (number & 7)
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        return True

    def __contains__(self, number: int) -> bool:
        """Tell whether a number is marked."""
        return bool(self._bits[number >> 3] >> (number & 7) & 1)

    def __len__(self) -> int:
        """Return how many are marked."""
        return int.from_bytes(self._bits, "little").bit_count()

    def without(self, others: "Marks") -> "Marks":
        """Return what is marked here and not there."""
        mine, theirs = (int.from_bytes(marks._bits, "little") for marks in (self, others))
        rest = Marks(0)
        rest._bits = bytearray((mine & ~theirs).to_bytes(len(self._bits), "little"))
        return rest


async def reachable(
    repository: Repository,
    index: BlobIndex,
    roots: Mapping[SnapshotId, BlobId],
    listener: Listener = nobody,
) -> Marks:
    """Return the positions of all blobs that the snapshots' trees refer to, themselves included.

    Each tree is read once, however many snapshots share it. Changes nothing.

    Raises:
        IntegrityError: a blob is in no index; the message names it and a snapshot that needs it.
            Or a tree is damaged.
        ObjectMissing: a pack with a tree is not there.
    """
    marks, done = Marks(len(index)), 0
    pending = list(roots.items())

    async def visit(place: tuple[SnapshotId, BlobId]) -> None:
        nonlocal done
        snapshot, tree = place
        if not marks.mark(_position(index, BlobKind.TREE, tree, snapshot)):
            return
        nodes = await repository.load_tree(tree)
        size = _ID_BYTES * sum(len(node.content or ()) for node in nodes)
        for number in await aside(size, lambda: _unmarked(index, marks, snapshot, nodes)):
            marks.mark(number)  # here and not in the thread, where two would lose a bit
        pending.extend((snapshot, node.subtree) for node in nodes if node.subtree is not None)
        done += index.plain_length(BlobKind.TREE, tree) or 0
        await listener(Progress("mark", "trees", done, 0))

    while pending:
        batch, pending[-_TREES_AT_ONCE:] = pending[-_TREES_AT_ONCE:], []
        await for_each(visit, batch)
    return marks


def _unmarked(
    index: BlobIndex, marks: Marks, snapshot: SnapshotId, nodes: Sequence[Node]
) -> Sequence[int]:
    found = array("Q")
    for node in nodes:
        content = node.content or ()
        for blob, position in zip(content, index.positions(BlobKind.DATA, content), strict=True):
            if position is None:
                raise _unlisted(BlobKind.DATA, blob, snapshot)
            if position not in marks:
                found.append(position)
    return found


def _position(index: BlobIndex, kind: BlobKind, blob: BlobId, snapshot: SnapshotId) -> int:
    position = index.position(kind, blob)
    if position is None:
        raise _unlisted(kind, blob, snapshot)
    return position


def _unlisted(kind: BlobKind, blob: BlobId, snapshot: SnapshotId) -> IntegrityError:
    return IntegrityError(
        f"snapshot {short(snapshot)} needs {kind.word} blob {blob.hex()}, which is in no index",
        hint="Run `mcp-backup check` to see what is affected. Nothing was deleted.",
    )
