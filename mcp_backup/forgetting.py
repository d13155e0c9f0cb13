"""Forgetting: judge the backups by the settings, drop those that nothing wants, and prune.

Only doors that a person holds, and the schedule, call this; no tool does. Verdicts, the plan of
the prune, the dropping and the pruning happen under one exclusive lock, so that what is dropped
is what was judged, and a repository that is damaged loses no backup.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from time import monotonic

from msgspec import Struct

from mcp_backup.catalog import Backup
from mcp_backup.engine import Engine
from mcp_backup.errors import IntegrityError, ObjectMissing, StoreDenied, UnsupportedFormat
from mcp_backup.judging import policy_of
from mcp_backup.progress import Listener, nobody
from mcp_backup.recording import recorded
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.repository.prune import survey
from mcp_backup.repository.repack import execute
from mcp_backup.settings import Settings
from mcp_backup.sources.source import Component
from mcp_backup.store.append_only import ELSEWHERE
from mcp_backup.verbs import PruneReport
from mcp_backup.verbs_upkeep import ForgetReport, JudgedBackup
from mcp_backup.workers import forking

logger = logging.getLogger(__name__)

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
    _refuse_append_only(engine, "forget", dry_run=dry_run)
    began, repository = monotonic(), engine.repository
    async with locked(repository, exclusive=not dry_run, wait=PATIENCE_SECONDS):
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
                async with forking(SEALING), sealing_pool(repository.key) as pool:
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
    _refuse_append_only(engine, "prune", dry_run=dry_run)
    repository = engine.repository
    async with locked(repository, exclusive=not dry_run, wait=PATIENCE_SECONDS):
        plan = await survey(repository, listener)
        if dry_run:
            return plan.report()
        async with forking(SEALING), sealing_pool(repository.key) as pool:
            return await execute(repository, plan, pool, listener)


class _Judged(Struct, frozen=True):
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


def _refuse_append_only(engine: Engine, verb: str, *, dry_run: bool) -> None:
    """Refuse before anything is locked; the store would refuse each delete as well."""
    if engine.settings.repository.append_only and not dry_run:
        location = engine.repository.store.location
        raise StoreDenied(
            f"{verb}: {location} is only added to here, by repository.append_only", hint=ELSEWHERE
        )


async def _judged(engine: Engine) -> list[_Judged]:
    found = await engine.judging.verdicts()
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
