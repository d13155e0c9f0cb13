"""The status: one word for how the backups are, why, and the facts behind it. Changes nothing.

failing    a source is older than its objective allows, the last backup failed, or damage was found
at risk    something went wrong or was left out, and every source is still young enough
healthy    neither
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic

from anyio import to_thread
from msgspec import Struct

from mcp_backup.alerts.alerts import Alerts
from mcp_backup.backup.cutting import cut_of, described
from mcp_backup.catalog import Backup
from mcp_backup.discovery import DatabaseFound, Found, find
from mcp_backup.engine import Engine
from mcp_backup.errors import HistoryUnusable
from mcp_backup.history import NewestCopy, Run, RunSource, Totals
from mcp_backup.history_facts import Window
from mcp_backup.judging import policy_of
from mcp_backup.proof.objectives import Recovery, recovery
from mcp_backup.recording import told_by_repository
from mcp_backup.settings import Settings
from mcp_backup.slots import missed, next_runs, schedules_of, zone_of
from mcp_backup.status_report import NextRun, SourceStatus, Statistics, StatusReport

_HOUR = timedelta(hours=1)
_AGES = (
    ("< 1 day", timedelta(days=1)),
    ("1-7 days", timedelta(days=7)),
    ("1-4 weeks", timedelta(days=30)),
    ("1-3 months", timedelta(days=90)),
    ("> 3 months", timedelta.max),
)
_LOOK_BACK = timedelta(days=30)
_MOST_JUDGED = 200  # backups whose manifests are read to tell what retention wants
_GRACE = timedelta(hours=1)  # a slot this old that was not run counts as missed
_BACKUPS_SEARCHED = 50  # for a source's newest copy, where the history cannot tell
_LOOKED_AROUND_FOR = 3600.0  # seconds that what lies unprotected is remembered
_SHORT = len("snapshots/") + 8  # of a snapshot file's name
_GOOD = ("stored", "unchanged")
_NO_WORD = ("running", "cancelled", "released")  # outcomes that say nothing of the backups

_Source = tuple[str, str]  # component and name
_around: dict[Path, tuple[float, Found]] = {}


class _Record(Struct, frozen=True):
    """What the history tells; `problem` says why it tells nothing, or lost what it had."""

    copies: Mapping[_Source, NewestCopy]
    windows: Mapping[_Source, Window]
    runs: Sequence[Run]
    totals: Totals
    taken: set[str]
    problem: str = ""


async def status(engine: Engine, *, around: bool = True) -> StatusReport:
    """Say how the backups are. With `around`, look for what is not protected, too.

    Raises:
        BackupError: the repository cannot be listed.
    """
    now, settings = engine.now(), engine.settings
    backups = [backup for backup in await engine.catalog.backups() if backup.ours]
    record = await _record(engine, backups)
    measured = await _measured(engine)
    cuts = await _cuts(engine, backups, record)
    sources = tuple(_source(engine, record, now, measured, cuts))
    due = await to_thread.run_sync(_missed, settings, record, now)
    undelivered = await _undelivered(engine)
    reasons = [*_failing(record, sources), *_at_risk(record, sources, due, now)]
    reasons += measured.reasons() if measured else ()
    reasons += [("at risk", f"an alert was not delivered: {each}") for each in undelivered[:1]]
    if engine.catalog.damaged:
        names = ", ".join(name[:_SHORT] for name in engine.catalog.damaged)
        reasons.insert(0, ("failing", f"{names} cannot be read; run `mcp-backup check`"))
    words = [word for word, _ in reasons]
    schedules = schedules_of(settings)
    return StatusReport(
        health="failing" if "failing" in words else "at risk" if words else "healthy",
        reasons=tuple(dict.fromkeys(reason for _, reason in reasons)),
        target_rpo_hours=settings.objectives.rpo_hours,
        sources=sources,
        backups=len(backups),
        newest=backups[0].snapshot.time if backups else None,
        age_distribution=ages([now - backup.snapshot.time for backup in backups]),
        statistics=statistics(record.totals),
        retention=_retention(settings),
        surplus=await _surplus(engine, backups),
        next_runs=tuple(
            NextRun(slot.schedule.name, slot.schedule.request.backup_type, slot.due)
            for slot in next_runs(schedules, zone_of(settings), now)
        ),
        missed=tuple(due),
        unprotected=tuple(await to_thread.run_sync(_unprotected, settings)) if around else (),
        target_rto_hours=settings.objectives.rto_hours,
        recovery_seconds=measured.seconds if measured else None,
        undelivered=undelivered,
    )


def ages(found: Sequence[timedelta]) -> dict[str, int]:
    """Count ages by how old they are."""
    ordered = sorted(found)
    below = [bisect_left(ordered, limit) for _, limit in _AGES]
    counts = (after - before for before, after in pairwise([0, *below]))
    return dict(zip((name for name, _ in _AGES), counts, strict=True))


def statistics(totals: Totals) -> Statistics:
    """Word the history's totals as a report."""
    done = totals.successes + totals.partial
    return Statistics(
        successes=totals.successes,
        partial=totals.partial,
        failures=totals.failures,
        interrupted=totals.interrupted,
        read_bytes=totals.read,
        new_bytes=totals.added,
        stored_bytes=totals.stored,
        compression=round(totals.added / totals.stored, 2) if totals.stored else 0.0,
        mean_seconds=round(totals.seconds / done, 3) if done else 0.0,
        longest_seconds=totals.longest,
    )


async def _record(engine: Engine, backups: Sequence[Backup]) -> _Record:
    history, since = engine.history, engine.now() - _LOOK_BACK
    try:
        copies = dict(await history.newest_copies())
        there = _among(backups, {copy.backup_id for copy in copies.values()})
        lost = [source for source, copy in copies.items() if copy.backup_id not in there]
        problem = await _damage(engine)
        if lost:
            names = ", ".join(f"{component}/{name}" for component, name in sorted(lost))
            problem = f"the newest backup of {names} is no longer in the repository"
            for source in lost:
                del copies[source]
            copies = await _told(engine) | copies
        return _Record(
            copies,
            await history.windows(),
            await history.runs(since=since, limit=100),
            await history.totals(),
            await history.slots_since(since),
            problem,
        )
    except HistoryUnusable as error:
        return _Record(await _told(engine), {}, (), Totals(), set(), str(error))


def _among(backups: Sequence[Backup], wanted: set[str]) -> set[str]:
    """Return which of the backup ids there are; the newest backups are looked at first."""
    found: set[str] = set()
    for backup in backups:
        if wanted <= found:
            break
        if backup.backup_id in wanted:
            found.add(backup.backup_id)
    return found


async def _damage(engine: Engine) -> str:
    """Say that the history was damaged, for as long as that is news."""
    aside = await engine.history.damaged()
    when = aside.rpartition("-")[2]
    if not when.isdigit() or engine.now().timestamp() - int(when) / 1000 > 7 * 86400:
        return ""
    return f"the history was damaged, is kept as {aside}, and was rebuilt from the repository"


async def _told(engine: Engine) -> dict[_Source, NewestCopy]:
    """Return the newest copies as the repository itself tells."""
    found: dict[_Source, NewestCopy] = {}
    for run in await told_by_repository(engine.catalog, engine.hostname, _BACKUPS_SEARCHED):
        for source in run.sources:
            if source.outcome in _GOOD:
                key = (str(source.component), source.name)
                found.setdefault(key, NewestCopy(run.begun, run.backup_id))
    return found


async def _measured(engine: Engine) -> Recovery | None:
    """Return what recovery takes; None where history or evidence cannot tell."""
    try:
        return await recovery(engine)
    except HistoryUnusable:
        return None


def _source(
    engine: Engine,
    record: _Record,
    now: datetime,
    measured: Recovery | None,
    cuts: Mapping[_Source, str],
) -> Iterator[SourceStatus]:
    target = engine.settings.objectives.rpo_hours
    for spec in engine.settings.sources():
        key = (str(spec.component), spec.name)
        copy = record.copies.get(key)
        age = (now - copy.time) / _HOUR if copy else None
        drill = measured.source(*key) if measured else None
        worst, began = _worst(record.windows.get(key), now)
        last = _last_try(record.runs, key)
        yield SourceStatus(
            source=spec.name,
            component=spec.component,
            last_success=copy.time if copy else None,
            rpo_hours=None if age is None else round(max(age, 0.0), 2),
            target_rpo_hours=target,
            worst_rpo_hours=worst,
            worst_began=began,
            overdue=age is None or age > target,
            failure=last.message if last and last.outcome == "failed" else "",
            suspect=_suspicion(last),
            recovery_seconds=drill.seconds if drill else None,
            drilled=drill.drilled if drill else None,
            cut=cuts.get(key, ""),
        )


async def _cuts(
    engine: Engine, backups: Sequence[Backup], record: _Record
) -> Mapping[_Source, str]:
    """Describe how each source's image is cut, by the manifest of its newest copy."""
    wanted = {copy.backup_id for copy in record.copies.values()}
    newest: dict[str, Backup] = {}
    for each in backups:  # the newest first, and of ten thousand all but a few are older
        if wanted <= newest.keys():
            break
        if each.backup_id in wanted:
            newest[each.backup_id] = each
    found: dict[_Source, str] = {}
    for key, copy in record.copies.items():
        backup = newest.get(copy.backup_id)
        manifest = await engine.catalog.legible(backup) if backup else None
        for source in manifest.sources if manifest else ():
            if (str(source.component), source.name) == key:
                found[key] = described(cut_of(source))
    return found


def _worst(window: Window | None, now: datetime) -> tuple[float | None, datetime | None]:
    """Return the longest time without a new copy in hours, until now too, and when it began."""
    if window is None:
        return None, None
    until_now = now - window.newest
    worst = max(window.widest, until_now)
    began = window.newest if worst == until_now else window.began
    return round(worst / _HOUR, 2), began


def _last_try(runs: Sequence[Run], key: _Source) -> RunSource | None:
    for run in runs:
        for source in run.sources:
            if run.verb == "create" and (source.component, source.name) == key:
                return source
    return None


def _suspicion(last: RunSource | None) -> str:
    if last is None or last.outcome == "failed" or not last.findings:
        return ""
    return last.message or f"{last.findings} findings"


def _failing(record: _Record, sources: Sequence[SourceStatus]) -> Iterator[tuple[str, str]]:
    tried = any(run.verb == "create" for run in record.runs)
    for each in sources:
        named = f"{each.component}/{each.source}"
        if each.rpo_hours is None and tried:
            yield "failing", f"{named} has never been backed up"
        elif each.overdue and each.rpo_hours is not None:
            yield (
                "failing",
                f"the newest copy of {named} is {each.rpo_hours:.1f} hours old, "
                f"and {each.target_rpo_hours:g} are allowed",
            )
    last = _last(record.runs, "create")
    if last and last.outcome in ("failed", "interrupted"):
        yield "failing", f"the last backup {last.outcome}: {last.message}"
    for verb in ("check", "verify"):
        last = _last(record.runs, verb)
        if last and last.outcome == "findings":
            yield "failing", f"the last {verb} found damage; run `mcp-backup {verb}` to see it"


def _at_risk(
    record: _Record, sources: Sequence[SourceStatus], due: Sequence[str], now: datetime
) -> Iterator[tuple[str, str]]:
    if not sources:
        yield "at risk", "no source is configured, so nothing is backed up"
    elif not record.copies and not any(run.verb == "create" for run in record.runs):
        yield "at risk", "nothing has been backed up yet; run `mcp-backup create`"
    for each in sources:
        named = f"{each.component}/{each.source}"
        if each.failure:
            yield "at risk", f"the last backup of {named} failed: {each.failure}"
        if each.suspect:
            yield "at risk", f"the last copy of {named} looks damaged or shrunken: {each.suspect}"
        if each.last_success and each.last_success > now + _HOUR:
            yield "at risk", f"the newest copy of {named} is from the future; look at the clock"
    for each_due in due:
        what = "run" if each_due.startswith("drill ") else "backup"
        yield "at risk", f"the scheduled {what} {each_due} was not made"
    if record.problem:
        yield "at risk", record.problem


def _last(runs: Sequence[Run], verb: str) -> Run | None:
    ended = (run for run in runs if run.verb == verb and run.outcome not in _NO_WORD)
    return next(ended, None)


def _missed(settings: Settings, record: _Record, now: datetime) -> list[str]:
    """Return the slots that passed without a run since there are runs."""
    if not record.runs:
        return []
    first = min(run.begun for run in record.runs)
    due = missed(schedules_of(settings), zone_of(settings), first, record.taken, now)
    return [slot.key for slot in due if now - slot.due > _GRACE]


async def _undelivered(engine: Engine) -> tuple[str, ...]:
    """Word the alerts that were tried in vain, oldest first."""
    if not engine.settings.alerts:
        return ()
    pending = await Alerts(engine.settings, engine.now, {}).pending()
    return tuple(
        f"{each.receiver}: {each.title} ({each.trouble})" for each in pending if each.trouble
    )


def _retention(settings: Settings) -> str:
    policy = policy_of(settings)
    if policy.keeps_everything:
        return "everything is kept"
    return f"{policy.daily} daily, {policy.weekly} weekly, {policy.monthly} monthly"


async def _surplus(engine: Engine, backups: Sequence[Backup]) -> int | None:
    if len(backups) > _MOST_JUDGED:
        return None
    return sum(not verdict.reasons for verdict in (await engine.judging.verdicts()).values())


def _unprotected(settings: Settings) -> Iterator[str]:
    """Yield what lies around and no source covers; looked for once an hour."""
    cwd = settings.file.parent if settings.file else Path.cwd()
    seen, found = _around.get(cwd, (0.0, None))
    if found is None or monotonic() - seen > _LOOKED_AROUND_FOR:
        over = frozenset({Path(settings.repository.location), settings.scratch, settings.state_dir})
        found = find(cwd, Path.home(), passed_over=over, clock=monotonic)
        _around[cwd] = monotonic(), found
    covered = {Path(spec.path) for spec in settings.sources()}
    open_ones = [each for each in found.databases if not _covers(covered, each)]
    names = {each.name for each in found.databases if _covers(covered, each)}
    names |= {spec.name for spec in settings.sources()}
    yield from (f"database {each.path}" for each in sorted(open_ones, key=lambda e: not e.near))
    yield from (f"server {name}" for name in found.servers if name not in names)


def _covers(covered: set[Path], found: DatabaseFound) -> bool:
    real = found.path.resolve()
    whole = {path.resolve() for path in covered}
    if found.kind == "duckdb" and whole & set(real.parents):
        return True  # a shard of a source
    return found.path in covered or real in whole
