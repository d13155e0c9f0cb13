"""What retention says of the backups there are: read by lists, status and `forget`.

Drops nothing. Verdicts are worked out again only when there are other backups, when a
verification or drill has found something since, or when one is no longer from the future.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.catalog import Backup, Catalog, Filter
from mcp_backup.errors import HistoryUnusable
from mcp_backup.format.ids import SnapshotId
from mcp_backup.history import History
from mcp_backup.history_facts import Proof
from mcp_backup.outline import Outline
from mcp_backup.retention import Candidate, Copy, Policy, Verdict, judge
from mcp_backup.settings import Settings
from mcp_backup.tasks import loaded
from mcp_backup.verbs import BackupEntry, BackupPage

if TYPE_CHECKING:
    from mcp_backup.proof.evidence import Evidence, Ledger, Record

logger = logging.getLogger(__name__)

EVIDENCE = "drills.jsonl"  # what drills proved, in the state directory; most have never run one
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)
_NOTHING = Proof()
_MANY = 500  # backups that take longer to judge than a hop into a thread costs


class _Proofs(NamedTuple):
    """What was found of copies since they were made.

    `verified` is by backup id; `drilled` what the last drill of a copy showed, by snapshot id and
    component/source; `drills` when a snapshot was last drilled without findings.
    """

    verified: Mapping[str, Proof]
    drilled: Mapping[tuple[str, str], bool]
    drills: Mapping[str, datetime]


class _Judged(Struct, frozen=True):
    """What was said, and what it went by."""

    backups: Sequence[Backup]
    proofs: _Proofs
    since: datetime  # the newest backup that is not from the future, if any
    until: datetime  # the oldest that is
    verdicts: Mapping[str, Verdict]

    def holds(self, backups: Sequence[Backup], proofs: _Proofs, now: datetime) -> bool:
        return backups is self.backups and proofs == self.proofs and self.since <= now < self.until


class Judging:
    """The verdicts on the backups of one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        history: History,
        state: Path,
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        """Judge by the retention in the settings, and by what the history and drills tell."""
        self._catalog, self._history, self._now = catalog, history, now
        self._state = state
        self._evidence: tuple[object, Evidence] | None = None
        self._policy = policy_of(settings)
        self._judged: _Judged | None = None
        self._told: dict[SnapshotId, Candidate] = {}  # of each backup, by these proofs
        self._told_by: _Proofs | None = None

    async def verdicts(self) -> Mapping[str, Verdict]:
        """Return what retention says of each backup now, by snapshot id, newest first."""
        return await self._verdicts(await self._catalog.backups(), await self._proofs())

    async def page(self, wanted: Filter, limit: int, cursor: str) -> BackupPage:
        """Return one page of backups, newest first, with what holds each, and what proves it."""
        page = await self._catalog.page(wanted, limit, cursor)
        proofs = await self._proofs()
        verdicts = await self._verdicts(self._catalog.listed, proofs)
        entries = [_with_standing(entry, verdicts, proofs) for entry in page.entries]
        return replace(page, entries=tuple(entries))

    async def evidence(self) -> "Evidence":
        """Return what drills have put on record; the file is read again when it has changed.

        Raises:
            HistoryUnusable: it cannot be read.
        """
        mark = await to_thread.run_sync(_mark, self._state / EVIDENCE)
        if self._evidence is None or mark != self._evidence[0]:
            proof = await loaded("mcp_backup.proof.evidence")
            ledger: Ledger = proof.Ledger(self._state, self._catalog.repository.key)
            self._evidence = mark, await ledger.read()
        return self._evidence[1]

    async def _proofs(self) -> _Proofs:
        verified: Mapping[str, Proof] = {}
        records: Sequence[Record] = ()
        drilled: Mapping[tuple[str, str], bool] = {}
        try:
            verified = await self._history.proofs()
            if await to_thread.run_sync((self._state / EVIDENCE).exists):
                evidence = await self.evidence()
                records, drilled = evidence.records, evidence.proofs()
        except HistoryUnusable as error:
            logger.warning("not known what was verified: %s", error)
        return _Proofs(verified, drilled, _drills(records))

    async def _verdicts(self, backups: Sequence[Backup], proofs: _Proofs) -> Mapping[str, Verdict]:
        now = self._now()
        if self._judged and self._judged.holds(backups, proofs, now):
            return self._judged.verdicts
        outlines = await self._catalog.outlines(backups)

        def work() -> Mapping[str, Verdict]:
            found = list(self._candidates(backups, outlines, proofs))
            return {each.id: each for each in judge(found, self._policy, now)}

        verdicts = work() if len(backups) < _MANY else await to_thread.run_sync(work)
        if len(self._told) == len(backups):  # else what is unreadable may be readable next time
            since, until = _present(backups, now)
            self._judged = _Judged(backups, proofs, since, until, verdicts)
        await self._catalog.keep()
        return verdicts

    def _candidates(
        self, backups: Sequence[Backup], outlines: Sequence[Outline | None], proofs: _Proofs
    ) -> Iterator[Candidate]:
        """Yield what is to be judged; what the same proofs told of a backup before, holds."""
        known = self._told if proofs == self._told_by else {}
        told: dict[SnapshotId, Candidate] = {}
        for backup, outline in zip(backups, outlines, strict=True):
            candidate = known.get(backup.id) or _candidate(backup, outline, proofs)
            if candidate.readable or not backup.ours:
                told[backup.id] = candidate
            yield candidate
        self._told, self._told_by = told, proofs


def _present(backups: Sequence[Backup], now: datetime) -> tuple[datetime, datetime]:
    """Return the time of the newest backup that is not from the future, and of the oldest that is.

    `backups` are newest first.
    """
    future = list(takewhile(lambda each: each.snapshot.time > now, backups))
    rest = backups[len(future) : len(future) + 1]
    return (
        rest[0].snapshot.time if rest else _ALWAYS,
        future[-1].snapshot.time if future else _NEVER,
    )


def policy_of(settings: Settings) -> Policy:
    """Return the retention that the settings ask for, by the calendar of the schedule."""
    kept, zone = settings.retention, settings.schedule.timezone
    return Policy(
        daily=kept.daily,
        weekly=kept.weekly,
        monthly=kept.monthly,
        minimum=kept.minimum,
        timezone=None if zone == "local" else ZoneInfo(zone),
    )


def _mark(file: Path) -> tuple[int, int, int]:
    """Return what tells one state of a file from another; zeros where there is none."""
    try:
        seen = file.stat()
    except OSError:
        return 0, 0, 0
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _drills(records: "Sequence[Record]") -> dict[str, datetime]:
    found: dict[str, datetime] = {}
    for record in records:
        for result in record.drill.results:
            if result.outcome == "proven":
                found[result.snapshot_id] = record.drill.started
        for result in record.drill.results:
            if result.outcome == "failed":
                found.pop(result.snapshot_id, None)
    return found


def _candidate(backup: Backup, outline: Outline | None, proofs: _Proofs) -> Candidate:
    return Candidate(
        id=backup.id.hex(),
        time=backup.snapshot.time,
        backup_type=backup.backup_type,
        copies=tuple(_copies(backup, outline, proofs)) if outline else (),
        host=backup.snapshot.hostname,
        ours=backup.ours,
        readable=outline is not None,
    )


def _copies(backup: Backup, outline: Outline, proofs: _Proofs) -> Iterator[Copy]:
    """Tell of each source; what was found since counts for more than what its making told."""
    proof = proofs.verified.get(backup.backup_id, _NOTHING)
    snapshot = backup.id.hex()
    for source in outline.sources:
        named = f"{source.component}/{source.name}"
        drilled = proofs.drilled.get((snapshot, named))
        damaged = source.name in proof.damaged or drilled is False
        proven = source.proven or bool(proof.verified and not source.suspect) or bool(drilled)
        yield Copy(named, source.outcome, proven and not damaged, source.suspect or damaged)


def _with_standing(
    entry: BackupEntry, verdicts: Mapping[str, Verdict], proofs: _Proofs
) -> BackupEntry:
    verdict = verdicts.get(entry.snapshot_id)
    proof = proofs.verified.get(entry.backup_id, _NOTHING)
    failed = {
        named.partition("/")[2]
        for (snapshot, named), proven in proofs.drilled.items()
        if snapshot == entry.snapshot_id and not proven
    }
    damaged = [name for name in entry.sources if name in proof.damaged or name in failed]
    return replace(
        entry,
        held_by=verdict.reasons if verdict else (),
        suspect=tuple(dict.fromkeys((*entry.suspect, *damaged))),
        verified=proof.verified or (None if proof.damaged else entry.verified),
        drilled=proofs.drills.get(entry.snapshot_id),
    )
