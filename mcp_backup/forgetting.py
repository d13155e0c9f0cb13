"""Forgetting: judge the backups by the settings, drop those that nothing wants, and prune.

Only doors that a person holds, and the schedule, call this; no tool does. Verdicts, the plan of
the prune, the dropping and the pruning happen under one exclusive lock, so that what is dropped
is what was judged, and a repository that is damaged loses no backup.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from zoneinfo import ZoneInfo

from mcp_backup.catalog import Backup, Catalog
from mcp_backup.engine import Engine
from mcp_backup.errors import IntegrityError, ObjectMissing, UnsupportedFormat
from mcp_backup.manifest import Manifest, SourceRecord
from mcp_backup.progress import Listener, nobody
from mcp_backup.proof.drill import ledger_of
from mcp_backup.recording import recorded
from mcp_backup.repository.locks import locked
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.repository.prune import survey
from mcp_backup.repository.repack import execute
from mcp_backup.retention import Candidate, Copy, Policy, Verdict, judge
from mcp_backup.settings import Settings
from mcp_backup.sources.source import Component
from mcp_backup.suspicion import suspicions
from mcp_backup.verbs import ForgetReport, JudgedBackup, PruneReport

logger = logging.getLogger(__name__)

_LOCK_PATIENCE_SECONDS = 60.0  # how long to wait for backups that are under way
_UNREADABLE = (IntegrityError, ObjectMissing, UnsupportedFormat)
_NOT_AGREED = "not among those agreed to"

_Source = tuple[str, Component, str]  # host, component and name


@recorded("forget")
async def forget(
    engine: Engine,
    listener: Listener = nobody,
    *,
    dry_run: bool = False,
    only: Collection[str] | None = None,
) -> ForgetReport:
    """Drop what retention does not keep, then prune. A dry run says what that would do.

    With `only`, a snapshot of another id is not dropped, whatever the verdict: what somebody
    agreed to may be older than the verdicts. Backups are kept out meanwhile. A cancel or crash
    leaves some of them dropped, the others whole, and space that the next prune frees.

    Raises:
        RepositoryLocked: somebody else is at work in the repository, and was for a minute.
        IntegrityError, ObjectMissing: something that the remaining backups need is damaged or
            missing; nothing was dropped, unless it was found while copying.
    """
    began, repository = monotonic(), engine.repository
    async with locked(repository, exclusive=not dry_run, wait=_LOCK_PATIENCE_SECONDS):
        judged = await _judged(engine)
        going = [one for one in judged if not one.reasons and (only is None or one.id in only)]
        prune_report = None
        assert not going or len(going) < len(judged), "retention would drop every backup"
        if going:
            identities = frozenset(one.backup.id for one in going)
            plan = await survey(repository, listener, without=identities)
            prune_report = plan.report()
            if not dry_run:
                for one in reversed(going):  # oldest first
                    await repository.forget(one.backup.id)
                    logger.info("forgotten: backup=%s snapshot=%s", one.backup.backup_id, one.id)
                async with sealing_pool(repository.key) as pool:
                    prune_report = await execute(repository, plan, pool, listener)
    return ForgetReport(
        dry_run=dry_run,
        policy=_worded(engine.settings),
        kept=tuple(one.told(_NOT_AGREED) for one in judged if one not in going),
        forgotten=tuple(one.told() for one in going),
        warnings=tuple(_warnings(judged, engine.settings)),
        prune=prune_report,
        duration_seconds=round(monotonic() - began, 3),
    )


@recorded("prune")
async def prune(
    engine: Engine, listener: Listener = nobody, *, dry_run: bool = False
) -> PruneReport:
    """Delete what no snapshot needs, whoever made it. A dry run says what that would do.

    A cancel or crash leaves every snapshot whole, and the rest for the next prune.

    Raises:
        RepositoryLocked: as `forget`.
        IntegrityError, ObjectMissing: something that a snapshot needs is damaged or missing;
            nothing that one needs was deleted.
    """
    repository = engine.repository
    async with locked(repository, exclusive=not dry_run, wait=_LOCK_PATIENCE_SECONDS):
        plan = await survey(repository, listener)
        if dry_run:
            return plan.report()
        async with sealing_pool(repository.key) as pool:
            return await execute(repository, plan, pool, listener)


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


async def verdicts(engine: Engine) -> dict[str, Verdict]:
    """Return what retention says of each backup now, by snapshot id, newest first."""
    found = await candidates(engine.catalog, (await ledger_of(engine).read()).proofs())
    return {each.id: each for each in judge(found, policy_of(engine.settings), engine.now())}


async def candidates(
    catalog: Catalog, proofs: Mapping[tuple[str, str], bool] | None = None
) -> list[Candidate]:
    """Return all snapshots as retention judges them, oldest first.

    A copy is suspect by its own findings, and by comparison with the one before it; what a drill
    of it showed, by snapshot and source in `proofs`, overrules both.
    """
    found = []
    previous: dict[_Source, SourceRecord] = {}
    for backup in reversed(await catalog.backups()):
        try:
            manifest = await catalog.manifest(backup)
        except _UNREADABLE as error:
            logger.warning("kept, as it cannot be read: backup=%s: %s", backup.backup_id, error)
            manifest = None
        found.append(
            Candidate(
                id=backup.id.hex(),
                time=backup.snapshot.time,
                backup_type=backup.backup_type,
                copies=tuple(_copies(manifest, backup, previous, proofs or {})) if manifest else (),
                host=backup.snapshot.hostname,
                ours=backup.ours,
                readable=manifest is not None,
            )
        )
    return found


def _copies(
    manifest: Manifest,
    backup: Backup,
    previous: dict[_Source, SourceRecord],
    proofs: Mapping[tuple[str, str], bool],
) -> Iterator[Copy]:
    for record in manifest.sources:
        source = (backup.snapshot.hostname, record.component, record.name)
        suspect = bool(suspicions(record, previous.get(source)))
        named = f"{record.component}/{record.name}"
        drilled = proofs.get((backup.id.hex(), named))
        proven = record.verified and not record.findings if drilled is None else drilled
        yield Copy(named, record.outcome, proven, suspect or drilled is False)
        if record.outcome != "failed":
            previous[source] = record


@dataclass(frozen=True, slots=True)
class _Judged:
    """A backup and the verdict on it."""

    backup: Backup
    reasons: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.backup.id.hex()

    def told(self, *otherwise: str) -> JudgedBackup:
        return JudgedBackup(
            backup_id=self.backup.backup_id,
            snapshot_id=self.id,
            time=self.backup.snapshot.time,
            backup_type=self.backup.backup_type,
            reasons=self.reasons or otherwise,
        )


async def _judged(engine: Engine) -> list[_Judged]:
    found = await verdicts(engine)
    backups = {backup.id.hex(): backup for backup in await engine.catalog.backups()}
    return [_Judged(backups[id_], each.reasons) for id_, each in found.items() if id_ in backups]


def _worded(settings: Settings) -> str:
    policy, zone = policy_of(settings), settings.schedule.timezone
    calendar = "this machine's calendar" if zone == "local" else f"the calendar of {zone}"
    return (
        f"{policy.daily} daily, {policy.weekly} weekly, {policy.monthly} monthly by {calendar}, "
        f"at least {policy.minimum} of each source"
    )


def _warnings(judged: Sequence[_Judged], settings: Settings) -> Iterator[str]:
    if policy_of(settings).keeps_everything:
        yield "retention.daily, .weekly and .monthly are all 0, so every backup is kept"
    counts: defaultdict[str, int] = defaultdict(int)
    for one in judged:
        for reason in one.reasons:
            counts[reason] += 1
    if count := counts["from the future"]:
        yield f"backups from the future are kept: {count}; look at this machine's clock"
    if count := counts["its manifest cannot be read"]:
        yield f"backups with an unreadable manifest are kept: {count}; run `mcp-backup check`"
