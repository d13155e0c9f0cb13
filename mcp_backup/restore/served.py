"""Databases that a server has: a copy is made beside the live one there, and kept there as well.

Directories of ours only note which; when such a directory is about to go, so is what it notes.
"""

from pathlib import Path

from anyio import to_thread

from mcp_backup.restore.journal import Record, Target, read_all
from mcp_backup.sources import capture
from mcp_backup.sources.source import SERVED


async def discard(record: Record) -> None:
    """Remove from their servers what an ended restore leaves there and nothing needs any more.

    That is what it made, unless that went live, and what it kept, once its undo point is pruned.
    What is live, or kept by another undo point, stays. May be repeated.

    Raises:
        SourceError: a server cannot be asked; another time, then.
    """
    served = [target for target in record.begun.targets if target.spec.kind in SERVED]
    for target in served:
        if record.outcome in ("rolled-back", "abandoned"):
            await _discard(target, record.staged(target))
        if record.pruned and not await to_thread.run_sync(_kept_elsewhere, record, target):
            await _discard(target, record.undo(target))


async def _discard(target: Target, directory: Path) -> None:
    if await to_thread.run_sync(directory.exists):
        await capture.discard(target.spec, directory)


def _kept_elsewhere(record: Record, target: Target) -> bool:
    """Tell whether another undo point is the same database: an undo of an undo keeps it again."""
    return any(
        other.kept.get(target.key) == record.kept.get(target.key)
        for other in read_all(record.directory.parent)
        if other.directory != record.directory
        and not other.pruned
        and (other.undoable or other.outcome is None)
    )
