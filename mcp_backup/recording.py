"""Putting every verb on record: that it begins, how it ends, and what it did.

A history that cannot be written stops nothing: the verb does its work, a backup's report carries
the warning, and the log says it. A cancel is put on record before it goes on.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import wraps
from time import monotonic
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import anyio
from msgspec.structs import replace

from mcp_backup.catalog import Backup, Catalog
from mcp_backup.errors import (
    BackupError,
    HistoryUnusable,
    IntegrityError,
    ObjectMissing,
    UnsupportedFormat,
)
from mcp_backup.history import Asker, Ending, History, Run, RunSource
from mcp_backup.manifest import Manifest
from mcp_backup.verbs import (
    BackupReport,
    CheckReport,
    CreateRequest,
    PruneReport,
    SourceFinding,
    SourceOutcome,
    VerifyReport,
)

if TYPE_CHECKING:
    from mcp_backup.drill_facts import DrillReport, WalkReport
    from mcp_backup.verbs_restores import RestoredTarget, RestorePlan, RestoreReport, UndoReport
    from mcp_backup.verbs_upkeep import ForgetReport

logger = logging.getLogger(__name__)

_LOOK_BACK = 1000  # backups that a new history is told of
_UNREADABLE = (IntegrityError, ObjectMissing, UnsupportedFormat)


class Recorded(Protocol):
    """What has verbs, and a history to put them on."""

    @property
    def history(self) -> History:
        """Where its runs are put on record."""


E = TypeVar("E", bound=Recorded)
P = ParamSpec("P")
R = TypeVar("R")
Verb = Callable[Concatenate[E, P], Coroutine[Any, Any, R]]


def recorded(verb: str) -> Callable[[Verb[E, P, R]], Verb[E, P, R]]:
    """Put each call of a verb on record; a dry run, which does nothing, is not.

    The run's subject is the verb's first argument, where that is text or a request.
    """

    def decorated(function: Verb[E, P, R]) -> Verb[E, P, R]:
        @wraps(function)
        async def call(engine: E, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs.get("dry_run"):
                return await function(engine, *args, **kwargs)
            subject = _subject(args[0] if args else next(iter(kwargs.values()), ""))
            return await _run(
                engine.history, verb, subject, lambda: function(engine, *args, **kwargs)
            )

        return call

    return decorated


async def _run(history: History, verb: str, subject: str, work: Callable[[], Awaitable[R]]) -> R:
    began = monotonic()
    run, problem = None, None
    try:
        run = await history.begin(verb, subject=subject)
    except HistoryUnusable as error:
        logger.warning("not put on record: verb=%s: %s", verb, error)
        problem = error

    async def end(facts: _Facts) -> HistoryUnusable | None:
        if run is None:
            return problem
        return await _end(history, run, facts, monotonic() - began)

    try:
        report = await work()
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            await end(_Facts("cancelled"))
        raise
    except BaseException as error:
        await end(_failure(error))
        raise
    with anyio.CancelScope(shield=True):
        problem = await end(_facts(verb, report))
    return _warned(report, problem) if problem else report


async def record_walk(history: History, walk: "WalkReport") -> None:
    """Put a walk through the runbook on record, when it is over.

    On the worst day there is no history before the walk has brought it back.

    Raises:
        HistoryUnusable: it could not be.
    """
    well = "talked through" if walk.mode == "tabletop" else "as printed"
    told = f"{walk.mode}, {walk.steps} steps, {well if walk.complete else walk.stopped}"
    ending: Ending = "findings" if walk.different else "cancelled"
    run = await history.begin("walk", subject=walk.page, begun=walk.started)
    await history.end(
        run, "completed" if walk.complete else ending, duration=walk.seconds, message=told
    )


class _Facts(NamedTuple):
    """What is put on record of a verb's end."""

    outcome: Ending = "completed"
    backup_id: str = ""
    read: int = 0
    added: int = 0
    stored: int = 0
    error_code: str = ""
    message: str = ""
    sources: tuple[RunSource, ...] = ()


async def _end(
    history: History, run: int, facts: _Facts, duration: float
) -> HistoryUnusable | None:
    try:
        await history.end(
            run,
            facts.outcome,
            backup_id=facts.backup_id,
            read=facts.read,
            added=facts.added,
            stored=facts.stored,
            duration=round(duration, 3),
            error_code=facts.error_code,
            message=facts.message,
            sources=facts.sources,
        )
    except HistoryUnusable as error:
        logger.warning("the end of a run was not put on record: run=%s: %s", run, error)
        return error
    return None


def _warned(report: R, problem: HistoryUnusable) -> R:
    if isinstance(report, BackupReport):
        warning = f"{problem}. {problem.hint}"
        return replace(report, warnings=(*report.warnings, warning))
    return report


def _subject(first: object) -> str:
    if isinstance(first, CreateRequest):
        return first.backup_type
    return first if isinstance(first, str) else ""


def _failure(error: BaseException) -> _Facts:
    if isinstance(error, BackupError):
        return _Facts("failed", error_code=error.code, message=str(error))
    return _Facts("failed", error_code="bug", message=type(error).__name__)


def _facts(verb: str, report: Any) -> _Facts:
    told = _TOLD.get(verb)
    return told(report) if told else _Facts()


def _of_check(report: CheckReport) -> _Facts:
    found = f"{len(report.findings)} findings" if report.findings else ""
    return _Facts("completed" if report.ok else "findings", read=report.read_bytes, message=found)


def _of_forgetting(report: "ForgetReport") -> _Facts:
    gone = ", ".join(each.backup_id for each in report.forgotten)
    return _Facts(message=f"forgotten: {len(report.forgotten)} {gone}".rstrip())


def _of_prune(report: PruneReport) -> _Facts:
    return _Facts(message=f"freed: {report.freed_bytes} bytes")


def _of_approval(report: "RestorePlan") -> _Facts:
    return _Facts(backup_id=report.backup_id)


def _of_restore(report: "RestoreReport") -> _Facts:
    return _of_targets(report.restore_id, report.targets, report.backup_id)


def _of_undo(report: "UndoReport") -> _Facts:
    return _of_targets(report.restore_id, report.targets)


def _of_targets(
    restore_id: str, targets: "Sequence[RestoredTarget]", backup_id: str = ""
) -> _Facts:
    sources = tuple(
        RunSource(t.component, t.source, "restored", read=t.size, message=t.path) for t in targets
    )
    return _Facts(backup_id=backup_id, message=restore_id, sources=sources)


def _of_backup(report: BackupReport) -> _Facts:
    outcome: Ending = report.status
    if outcome == "completed" and (report.verification == "findings" or report.suspect):
        outcome = "findings"
    wrong = (*report.findings, *report.suspect)
    return _Facts(
        outcome,
        report.backup_id,
        read=report.read_bytes,
        added=report.new_bytes,
        stored=report.added_bytes,
        sources=tuple(
            RunSource(
                each.component,
                each.name,
                each.outcome,
                each.read_bytes,
                each.added_bytes,
                each.duration_seconds,
                *_blame(each, [finding for finding in wrong if finding.source == each.name]),
            )
            for each in report.outcomes
        ),
    )


def _blame(source: SourceOutcome, wrong: Sequence[SourceFinding]) -> tuple[int, str]:
    """Return how many findings there are of a source, and what is wrong in words."""
    if source.failure:
        return len(wrong), source.failure.message
    return len(wrong), f"{wrong[0].subject}: {wrong[0].message}" if wrong else ""


def _of_verification(report: VerifyReport) -> _Facts:
    found = [finding.source for finding in report.findings]
    return _Facts(
        "completed" if report.ok else "findings",
        report.backup_id,
        read=report.read_bytes,
        message=f"level {report.level}",
        sources=tuple(
            RunSource("", name, "findings" if name in found else "verified", 0, 0, 0.0, n)
            for name in report.sources
            for n in (found.count(name),)
        ),
    )


def _of_drill(report: "DrillReport") -> _Facts:
    found = next(report.every_finding(), None)
    first = f": {found.source}: [{found.code}] {found.message}" if found else ""
    endings: dict[str, Ending] = {"failed": "findings", "incomplete": "partial"}
    return _Facts(
        endings.get(report.outcome, "completed"),
        read=sum(each.size for each in report.results),
        message=f"evidence {report.record}, seal {report.seal[:16]}{first}",
        sources=tuple(
            RunSource(
                each.component,
                each.source,
                each.outcome,
                each.size,
                0,
                each.seconds,
                len(each.findings),
                each.backup_id,
            )
            for each in report.results
        ),
    )


_TOLD: Mapping[str, Callable[[Any], _Facts]] = {  # what is put on record of a verb's report
    "create": _of_backup,
    "verify": _of_verification,
    "check": _of_check,
    "approve": _of_approval,
    "restore": _of_restore,
    "undo": _of_undo,
    "drill": _of_drill,
    "forget": _of_forgetting,
    "prune": _of_prune,
}


async def take_up(history: History, catalog: Catalog, hostname: str) -> None:
    """Tell a new history what this machine's backups in the repository tell; else do nothing.

    A history that cannot be used is left to whoever asks for it; where the repository cannot be
    listed, it is tried again the next time.
    """
    try:
        if not await history.is_new():
            return
        taken = await history.rebuilt(reversed(await told_by_repository(catalog, hostname)))
        if taken:
            logger.warning("history rebuilt from the repository: backups=%s", taken)
    except BackupError as error:
        logger.warning("no history: %s", error)


async def told_by_repository(catalog: Catalog, hostname: str, limit: int = _LOOK_BACK) -> list[Run]:
    """Return a machine's backups in the repository as runs, newest first."""
    found = []
    for backup in (await catalog.backups())[:limit]:
        if backup.ours and backup.snapshot.hostname == hostname:
            found += await _of_snapshot(catalog, backup)
    return found


async def _of_snapshot(catalog: Catalog, backup: Backup) -> list[Run]:
    try:
        manifest = await catalog.manifest(backup)
    except _UNREADABLE as error:
        logger.warning("not in the rebuilt history: backup=%s: %s", backup.backup_id, error)
        return []
    return [_of_manifest(manifest)] if manifest else []


def _of_manifest(manifest: Manifest) -> Run:
    begun = datetime.fromisoformat(manifest.started)
    sources = tuple(
        RunSource(
            record.component,
            record.name,
            record.outcome,
            record.read,
            record.added,
            record.duration_seconds,
            len(record.findings) + len(record.suspect),
            record.failure.message if record.failure else "",
        )
        for record in manifest.sources
    )
    return Run(
        id=0,
        verb="create",
        subject=manifest.backup_type,
        asker=Asker("unknown"),
        begun=begun,
        ended=begun,
        outcome=manifest.status,
        backup_id=manifest.backup_id,
        read=sum(source.read for source in sources),
        added=0,
        stored=sum(source.added for source in sources),
        duration=round(sum(source.duration for source in sources), 3),
        error_code="",
        message="rebuilt from the repository",
        sources=sources,
    )
