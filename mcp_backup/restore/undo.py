"""Undo: putting back what was live before a restore, and keeping count of what can be.

An undo is a restore of its own: it takes the turn, keeps an undo point before it touches
anything, and is journaled, so it survives a crash and can be undone in turn.
"""

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from anyio import to_thread

from mcp_backup.errors import RestoreError
from mcp_backup.restore.journal import (
    UNDO,
    Begun,
    Journal,
    Record,
    Signature,
    Steps,
    Target,
    directory_of,
    nothing,
    read,
    read_all,
    restore_id,
)
from mcp_backup.restore.signatures import ABSENT
from mcp_backup.restore.swap import Swap, sweep
from mcp_backup.sources.source import PIECEWISE
from mcp_backup.verbs_restores import UndoPoint


async def undo(
    restores: Path,
    identity: str,
    now: Callable[[], datetime],
    random: Callable[[int], bytes],
    step: Steps = nothing,
) -> Record:
    """Put back what was live before the restore `identity`; return the undo's own record.

    The caller holds the turn and has recovered. A cancel before the exchange leaves everything
    as it was; one that comes later is delivered after its end.

    Raises:
        UnknownPlan: no restore has that id.
        RestoreError: it changed nothing, was undone already, or its undo point was removed.
        TargetBusy: a process holds a live file; nothing was touched.
        RolledBack: part of it failed, and live data is as before the undo.
    """
    undone = await to_thread.run_sync(undoable, restores, identity)
    if undone.outcome is None:  # recovery could not end it; putting everything back does
        journal = Journal(undone.directory, now, step)
        await Swap(journal).end("interrupted", "given up for an undo")
    begun = Begun(
        restore_id=restore_id(now(), random),
        purpose="undo",
        plan_id="",
        backup_id=undone.begun.backup_id,
        snapshot_id=undone.begun.snapshot_id,
        started=now(),
        targets=undone.begun.targets,
        undoes=identity,
    )
    journal = await to_thread.run_sync(Journal.create, restores, begun, now, step)
    swap = Swap(journal)
    try:
        await swap.prepared({target.key: _changed(undone, target) for target in begun.targets})
        await swap.run()
    except BaseException:
        await swap.abandon()
        raise
    return await swap.read()


async def undo_points(restores: Path) -> list[UndoPoint]:
    """Return what can be undone, newest first."""
    return await to_thread.run_sync(_undo_points, restores)


async def prune(
    restores: Path, keep: int, now: Callable[[], datetime], step: Steps = nothing
) -> list[str]:
    """Remove all undo points but the newest `keep`; return the ids of those removed.

    Never one of an unfinished restore, one that an unfinished undo is putting back, or one of an
    interrupted restore: those are the only copy of what was live.
    """
    records = await to_thread.run_sync(read_all, restores)
    needed = {record.begun.undoes for record in records if record.outcome is None}
    spent = [
        record
        for record in records
        if record.undoable
        and record.begun.restore_id not in needed
        and (record.outcome == "restored" or _undone_by(record, records))
    ]
    removed = spent[: max(0, len(spent) - keep)]
    for record in removed:
        journal = Journal(record.directory, now, step)
        await to_thread.run_sync(journal.append, "pruned")
        await sweep(journal)
    return [record.begun.restore_id for record in removed]


def undoable(restores: Path, identity: str) -> Record:
    """Return what a restore's journal tells, if it can be undone.

    Raises:
        UnknownPlan: no restore has that id.
        RestoreError: it changed nothing, was undone already, or its undo point was removed.
    """
    record = read(directory_of(restores, identity))
    by = _undone_by(record, read_all(restores))
    if by:
        raise RestoreError(
            f"{identity} was undone already, by {by}",
            hint=f"To go back to what it restored, undo {by}. Nothing was touched.",
        )
    if record.pruned:
        raise RestoreError(
            f"the undo point of {identity} was removed to make room for newer ones",
            hint="Restore from a backup instead. Nothing was touched.",
        )
    if not (record.undoable or (record.outcome is None and record.exchanging)):
        raise RestoreError(
            f"{identity} changed nothing that is still changed ({record.outcome or 'not begun'})",
            hint="There is nothing to undo. Nothing was touched.",
        )
    return record


def _changed(record: Record, target: Target) -> Signature:
    """Return what a restore changed, as it was before: what it left alone is not undone either."""
    kept, new = record.kept[target.key], record.new[target.key]
    if target.spec.kind not in PIECEWISE:
        return kept
    changed = {path: what for path, what in kept.items() if what != new[path]}
    if target.spec.kind == "workflows" and not target.spec.options.get("remove"):
        return {path: what for path, what in changed.items() if what != ABSENT}  # those stay
    return changed


def _undone_by(record: Record, records: Iterable[Record]) -> str:
    for other in records:
        if other.begun.undoes == record.begun.restore_id and other.outcome == "restored":
            return other.begun.restore_id
    return ""


def _undo_points(restores: Path) -> list[UndoPoint]:
    records = read_all(restores)
    return [
        UndoPoint(
            restore_id=record.begun.restore_id,
            backup_id=record.begun.backup_id,
            time=record.begun.started,
            sources=tuple(target.spec.name for target in record.begun.targets),
            size=size_of(record.directory / UNDO),
        )
        for record in reversed(records)
        if record.undoable and not _undone_by(record, records)
    ]


def size_of(directory: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _directories, files in os.walk(directory)
        for name in files
    )
