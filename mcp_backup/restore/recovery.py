"""Recovery: what a crash left of a restore is finished or put right at the next start.

The journal says how far it came, the live data say how much of the last step was done:

    nothing exchanged yet      what was staged and kept is removed; live data was never touched
    mid-exchange               a target that is old is exchanged now, one that is new is noted;
                               when one cannot be exchanged any more, all are put back
    mid-rollback               a target that is new is put back, one that is old is noted
    a target that is neither   somebody wrote to it since: it is left as it is, the restore ends
                               as interrupted, and its undo point is kept
    a target that is busy      the journal stays as it is, and the next start tries again

Doing it again does no harm, and a crash in it is recovered like any other.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

import anyio
from anyio import to_thread
from msgspec import Struct

from mcp_backup.errors import BackupError, RestoreError, SourceBusy, TargetBusy
from mcp_backup.restore.journal import (
    STAGED,
    Journal,
    Outcome,
    Record,
    Steps,
    Target,
    directories,
    nothing,
)
from mcp_backup.restore.signatures import Resemblance, compare, of_live
from mcp_backup.restore.swap import Swap, sweep
from mcp_backup.restore.turn import turn
from mcp_backup.restore.workspace import RESTORES, remove_tree
from mcp_backup.sources.source import SERVED

_WAIT = (TargetBusy, SourceBusy)  # what passes when its holder ends
SETTLE_SECONDS = 1.5  # a worker may outlive a killed parent by a second, and still be exchanging


class Recovered(Struct, frozen=True):
    """What became of one unfinished restore. `message` is for people."""

    restore_id: str
    outcome: Outcome | Literal["postponed"]
    message: str


async def recover(
    state: Path,
    now: Callable[[], datetime],
    step: Steps = nothing,
    settle_seconds: float = SETTLE_SECONDS,
) -> list[Recovered]:
    """Finish or put right every unfinished restore; called at start-up.

    When another process is restoring or recovering, it is that process's work and nothing is
    done here. A cancel leaves what a crash would leave, between two targets.
    """
    try:
        async with turn(state, wait_seconds=0):
            return await recover_in_turn(state / RESTORES, now, step, settle_seconds)
    except TargetBusy:
        return []


async def recover_in_turn(
    restores: Path,
    now: Callable[[], datetime],
    step: Steps = nothing,
    settle_seconds: float = SETTLE_SECONDS,
) -> list[Recovered]:
    """Do the same while holding the turn: whoever left an unfinished journal is dead."""
    found: list[Recovered] = []
    for directory in await to_thread.run_sync(directories, restores):
        try:
            recovery = _Recovery(Journal(directory, now, step), settle_seconds)
            outcome = await recovery.run()
        except FileNotFoundError:  # it died before it wrote a word, or while it was removed
            await to_thread.run_sync(remove_tree, directory)
        except RestoreError as error:
            found.append(Recovered(directory.name, "postponed", str(error)))
        else:
            found += [outcome] if outcome else []
    return found


class _Recovery:
    """One journal, taken to its end."""

    def __init__(self, journal: Journal, settle_seconds: float) -> None:
        self._journal = journal
        self._swap = Swap(journal)
        self._settle_seconds = settle_seconds

    async def run(self) -> Recovered | None:
        """Take the journal to its end; None when there was nothing left to tell."""
        record = await self._swap.read()
        if record.outcome is not None:
            left = await sweep(self._journal)
            return Recovered(record.begun.restore_id, "postponed", left) if left else None
        if not record.exchanging:
            if any(target.spec.kind in SERVED for target in record.begun.targets):
                await anyio.sleep(self._settle_seconds)  # what it may be making there is ours
            return await self._end("abandoned", "nothing live had been touched")
        await anyio.sleep(self._settle_seconds)
        with anyio.CancelScope(shield=True):
            return await self._finished(record)
        raise AssertionError("a shield does not swallow anything")

    async def _finished(self, record: Record) -> Recovered:
        try:
            if record.failed:
                return await self._backward(record)
            return await self._forward(record)
        except (BackupError, OSError) as error:
            return Recovered(
                record.begun.restore_id, "postponed", f"{error}; the next start tries again"
            )

    async def _forward(self, record: Record) -> Recovered:
        if record.begun.purpose == "restore" and not (record.directory / STAGED).is_dir():
            return await self._backward(record)  # rolled back on a disk too full to say so
        strange: list[str] = []
        for target in record.begun.targets:
            if target.key in record.exchanged:
                continue
            likeness = await self._likeness(record, target)
            if likeness == "other":
                strange.append(target.key)
                continue
            try:
                notes = [] if likeness == "new" else await self._swap.exchange(record, target)
            except _WAIT:
                raise
            except (BackupError, OSError) as error:  # it will not go, so all of it goes back
                message = f"{target.key}: {error}"
                await self._swap.note("failed", target=target.key, message=message)
                return await self._backward(await self._swap.read())
            await self._swap.note("exchanged", target=target.key, notes=notes)
        if strange:
            return await self._end("interrupted", _written_since(record, strange))
        return await self._end("restored", "finished after a crash")

    async def _backward(self, record: Record) -> Recovered:
        strange: list[str] = []
        touched = {*record.exchanged, record.failed}
        for target in reversed(record.begun.targets):
            if target.key not in touched or target.key in record.put_back:
                continue
            likeness = await self._likeness(record, target)
            if likeness == "other":
                strange.append(target.key)
            elif likeness != "old":
                await self._swap.put_back(record, target)
        if strange:
            return await self._end("interrupted", _written_since(record, strange))
        return await self._end("rolled-back", f"{record.message}; put back after a crash")

    async def _likeness(self, record: Record, target: Target) -> Resemblance:
        new = record.new[target.key]
        return compare(await of_live(target.spec, new), record.kept[target.key], new)

    async def _end(self, outcome: Outcome, message: str) -> Recovered:
        await self._swap.end(outcome, message)
        return Recovered(self._journal.directory.name, outcome, message)


def _written_since(record: Record, keys: list[str]) -> str:
    return (
        f"{', '.join(keys)} changed after the crash and was left as it is; "
        f"what was live before is kept: `mcp-backup undo {record.begun.restore_id}`"
    )
