"""The swap: live data exchanged for what was staged, under a journal, forward or not at all.

    keep        an undo point of every target, on the disk before any target is touched; ahead of
                its time where nothing is written to a database until it is due
    exchange    one target after the other; each old or new, never in between
    verify      that what is live now is what was staged
    ended       said last

When an exchange fails, those before it are put back from their undo points. When the process
dies, `recovery` takes it from the journal. An undo is the same with other hands: what goes live
comes from the undo point of the restore it undoes, and it keeps an undo point of its own.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import anyio
from anyio import to_thread

from mcp_backup.durable import make_directory_durably
from mcp_backup.errors import (
    BackupError,
    RestoreInterrupted,
    RolledBack,
    SourceBusy,
    SourceError,
    SourceUnstable,
    TargetBusy,
)
from mcp_backup.restore import served
from mcp_backup.restore.journal import (
    STAGED,
    UNDO,
    Journal,
    Outcome,
    Record,
    Signature,
    Target,
    fsync_tree,
)
from mcp_backup.restore.keep_paths import keep_paths
from mcp_backup.restore.signatures import (
    ABSENT,
    DAMAGED,
    compare,
    differing,
    of_kept,
    of_live,
)
from mcp_backup.restore.stager import worded
from mcp_backup.restore.workspace import remove_tree
from mcp_backup.sources import capture
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.source import PIECEWISE, SourceSpec


class Swap:
    """The exchange that one journal is about. The caller holds the turn."""

    def __init__(self, journal: Journal) -> None:
        """Exchange the journal's targets, once their `new` signatures are in it."""
        self.journal = journal
        self._unwritten = False
        self._ahead: dict[str, tuple[str, KeptCopy]] = {}  # by target: as of which state, and what

    async def run(self) -> None:
        """Keep, exchange, verify.

        A cancel or failure while undo points are being kept leaves live data alone. Once the
        exchange has begun a cancel is delivered after its end.

        Raises:
            RolledBack: an exchange failed; what was live before is live again.
            RestoreInterrupted: and could not be put back everywhere.
            TargetBusy, SourceError: the first exchange failed and changed nothing.
        """
        record = await self.read()
        for target in record.begun.targets:
            await self._keep(record, target)
        with anyio.CancelScope(shield=True):
            await self.note("exchanging")
            try:
                await self.forward()
            except _ExchangeFailed as failure:
                await self._undone(failure)
            await self.end("restored", "")

    async def prepared(self, new: Mapping[str, Signature]) -> None:
        """Write down what will go live, by target; comes before `run`."""
        for key, signature in new.items():
            await self.note("new", target=key, signature=dict(signature))

    async def keep_ahead(self, target: Target) -> None:
        """Take a database's undo point before it is due, while something else is waited for.

        `run` takes it for the undo point if the database is as it was then, by the same evidence
        by which a backup finds it unchanged, and else takes another.
        """
        if target.spec.kind != "sqlite" or not (mark := await _state(target.spec)):
            return
        record = await self.read()
        kept = await self._copied(record, target, record.staged(target))
        self._ahead[target.key] = mark, kept

    async def abandon(self) -> None:
        """Clear away what was prepared, unless the exchange has begun; shielded, for cleanup."""
        with anyio.CancelScope(shield=True), suppress(FileNotFoundError):  # it ended, and is gone
            record = await self.read()
            if not record.exchanging and record.outcome is None:
                await self.end("abandoned", "")

    async def forward(self) -> None:
        """Exchange what has not been exchanged, in order.

        Raises:
            _ExchangeFailed: one failed; it may or may not have changed its target.
        """
        record = await self.read()
        for target in record.begun.targets:
            if target.key not in record.exchanged:
                try:
                    notes = await self.exchange(record, target)
                    await self.note("exchanged", target=target.key, notes=notes)
                except (BackupError, OSError) as error:
                    raise _ExchangeFailed(target, error) from error

    async def exchange(self, record: Record, target: Target) -> list[str]:
        """Make one target new, and see that it is; return notes for people."""
        self.journal.step(f"exchange {target.key}")
        notes: list[str] = []
        if record.begun.purpose == "undo":
            notes = await capture.put_back(target.spec, undo_source(record, target))
        else:
            notes = await capture.place(target.spec, record.staged(target))
        self.journal.step(f"verify {target.key}")
        new = record.new[target.key]
        try:
            _judge(target, await of_live(target.spec, new), new)
        except SourceBusy:  # in use again already; the exchange itself was one transaction
            notes.append("in use again before it could be read back")
        return notes

    async def put_back(self, record: Record, target: Target) -> None:
        """Make one target what its undo point holds."""
        self.journal.step(f"put back {target.key}")
        await capture.put_back(target.spec, record.undo(target))
        await self.note("put-back", target=target.key)

    async def read(self) -> Record:
        """Return what the journal tells by now."""
        return await to_thread.run_sync(self.journal.read)

    async def note(self, event: str, **facts: Any) -> None:
        """Write one line into the journal."""
        await to_thread.run_sync(partial(self.journal.append, event, **facts))

    async def end(self, outcome: Outcome, message: str) -> None:
        """Say how it ended, and remove what only the exchange needed."""
        await self.note("ended", outcome=outcome, message=message)
        await sweep(self.journal)

    async def _keep(self, record: Record, target: Target) -> None:
        """Take the target's undo point as late as can be: what is written after it is lost."""
        if record.begun.purpose == "undo" and target.spec.kind == "files":
            signature = await self._kept_paths(record, target)
        else:
            undoes = record.begun.purpose == "undo"
            source = undo_source(record, target) if undoes else record.staged(target)
            kept = await self._kept_ahead(record, target)
            kept = kept or await self._copied(record, target, source)
            directory, new = record.undo(target), record.new[target.key]
            signature = await of_kept(target.spec, kept, directory, new)
        await self.note("kept", target=target.key, signature=dict(signature))

    async def _kept_ahead(self, record: Record, target: Target) -> KeptCopy | None:
        """Return what was kept ahead, if it is what would be kept now; else remove it."""
        if target.key not in self._ahead:
            return None
        mark, kept = self._ahead.pop(target.key)
        if await _state(target.spec) == mark:
            return kept
        await to_thread.run_sync(remove_tree, record.undo(target))
        return None

    async def _copied(self, record: Record, target: Target, source: Path) -> KeptCopy:
        directory = await self._room(record, target)
        kept = await capture.keep(target.spec, directory, source)
        await self._make_durable(target, directory)
        return kept

    async def _kept_paths(self, record: Record, target: Target) -> Signature:
        directory, paths = await self._room(record, target), tuple(record.new[target.key])
        await to_thread.run_sync(keep_paths, target.spec, paths, directory)
        signature = await of_live(target.spec, paths)
        await self._make_durable(target, directory)
        return signature

    async def _room(self, record: Record, target: Target) -> Path:
        self.journal.step(f"keep {target.key}")
        directory = record.undo(target)
        await to_thread.run_sync(make_directory_durably, directory)
        return directory

    async def _make_durable(self, target: Target, directory: Path) -> None:
        self.journal.step(f"fsync undo {target.key}")
        with worded(directory, "keeping an undo point"):
            await to_thread.run_sync(fsync_tree, directory)

    async def _undone(self, failure: "_ExchangeFailed") -> NoReturn:
        """Put back what was exchanged, and raise what the caller should hear."""
        target, error = failure.target, failure.error
        what = f"{target.key}: {error}"
        await self._try_note("failed", target=target.key, message=what)
        record = await self.read()
        touched = [item for item in record.begun.targets if item.key in record.exchanged]
        if await self._was_touched(record, target, error):
            touched.append(target)
        stuck = {}
        for item in reversed(touched):
            try:
                self.journal.step(f"put back {item.key}")
                await capture.put_back(item.spec, record.undo(item))
                await self._try_note("put-back", target=item.key)
            except (BackupError, OSError) as trouble:
                stuck[item.key] = str(trouble)
        await self._ended_badly(stuck, what)
        if stuck:
            raise _interrupted(record, stuck, what) from error
        if not touched:
            raise error
        raise RolledBack(
            f"{what}; put back: {', '.join(item.key for item in touched)}",
            hint="Live data is as it was before the restore. "
            f"{getattr(error, 'hint', '') or 'Plan the restore again when the cause is gone.'}",
        ) from error

    async def _was_touched(self, record: Record, target: Target, error: Exception) -> bool:
        """Tell whether a failed exchange may have changed its target. If in doubt, it has."""
        if isinstance(error, TargetBusy):
            return False
        try:
            found = await of_live(target.spec, record.new[target.key])
        except BackupError:
            return True
        return found != record.kept[target.key]

    async def _try_note(self, event: str, **facts: Any) -> None:
        """Write a line if the disk takes it; putting live data back must not wait for that."""
        try:
            await self.note(event, **facts)
        except OSError:
            self._unwritten = True

    async def _ended_badly(self, stuck: Mapping[str, str], what: str) -> None:
        await self._try_note(
            "ended", outcome="interrupted" if stuck else "rolled-back", message=what
        )
        if self._unwritten:  # without a staged copy, recovery cannot go forward either
            shutil.rmtree(self.journal.directory / STAGED, ignore_errors=True)
        else:
            await sweep(self.journal)


class _ExchangeFailed(Exception):
    """One exchange failed."""

    def __init__(self, target: Target, error: BackupError | OSError) -> None:
        super().__init__(str(error))
        self.target = target
        self.error = error


async def _state(spec: SourceSpec) -> str:
    """Identify the state of a live database; "" while nothing sound can be said about it."""
    try:
        (mark,) = await capture.fingerprints([spec])
    except SourceError:
        return ""  # keeping it will meet that again, and tell
    return mark


def undo_source(record: Record, target: Target) -> Path:
    """Return the undo point that an undo puts back: that of the restore it undoes."""
    return record.directory.parent / record.begun.undoes / UNDO / target.key


async def sweep(journal: Journal) -> str:
    """Remove what an ended restore does not need any more; does nothing when it is gone.

    Says in a sentence why something stays for the next start to remove, or "".
    """
    record = await to_thread.run_sync(journal.read)
    assert record.outcome is not None
    journal.step("discard")
    try:
        await served.discard(record)
    except BackupError as error:
        return f"{error}; what the restore left there is removed at the next start"
    await to_thread.run_sync(_swept, journal, record)
    return ""


def _swept(journal: Journal, record: Record) -> None:
    journal.step("remove staged")
    remove_tree(record.directory / STAGED)
    if record.outcome in ("rolled-back", "abandoned") or record.pruned:
        journal.step("remove undo")
        remove_tree(record.directory / UNDO)
        journal.step("remove journal")
        remove_tree(record.directory)


def _judge(target: Target, found: Signature, new: Signature) -> None:
    """Compare what is live with what went live.

    A database may have been written to since by whoever has it open, so it only has to be sound;
    the exchange itself was one transaction.
    """
    if compare(found, new, new) == "old":
        return
    if target.spec.kind in PIECEWISE:
        paths = ", ".join(differing(found, new)[:5])
        raise SourceUnstable(f"{target.key}: {paths} are not what was put there")
    for path in differing(found, new):
        if found.get(path, ABSENT) in (ABSENT, DAMAGED):
            raise SourceUnstable(f"{target.key} is {found.get(path, ABSENT)} after the exchange")


def _interrupted(record: Record, stuck: Mapping[str, str], what: str) -> RestoreInterrupted:
    places = "; ".join(f"{key} ({why})" for key, why in stuck.items())
    return RestoreInterrupted(
        f"{what}; and could not be put back: {places}",
        hint=f"What was live before is kept in {record.directory / UNDO}. Stop what holds the "
        f"files, then run `mcp-backup undo {record.begun.restore_id}`.",
    )
