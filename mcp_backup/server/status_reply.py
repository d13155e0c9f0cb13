"""The answer of `backup_status`: for programs, and in a few lines of text."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import AwareDatetime

from mcp_backup.server.replies import Reply
from mcp_backup.server.wording import clipped, size

if TYPE_CHECKING:
    from mcp_backup.status_report import SourceStatus, StatusReport


class SourceStatusReply(Reply):
    """One source; hours without a copy, measured now, and the most on record."""

    source: str
    component: str
    last_success: AwareDatetime | None
    rpo_hours: float | None
    worst_rpo_hours: float | None
    worst_began: AwareDatetime | None
    overdue: bool
    failure: str
    recovery_seconds: float | None
    drilled: AwareDatetime | None
    suspect: str
    cut: str

    @classmethod
    def of(cls, source: "SourceStatus") -> Self:
        """Tell of one source."""
        return cls(
            source=source.source,
            component=source.component,
            last_success=source.last_success,
            rpo_hours=source.rpo_hours,
            worst_rpo_hours=source.worst_rpo_hours,
            worst_began=source.worst_began,
            overdue=source.overdue,
            failure=clipped(source.failure),
            recovery_seconds=source.recovery_seconds,
            drilled=source.drilled,
            suspect=clipped(source.suspect),
            cut=source.cut,
        )


class NextRunReply(Reply):
    """When a schedule is due next."""

    schedule: str
    due: AwareDatetime


class StatusReply(Reply):
    """How the backups are, and why. `surplus` is what retention no longer wants, if judged."""

    health: Literal["healthy", "at risk", "failing"]
    reasons: list[str]
    target_rpo_hours: float
    target_rto_hours: float
    recovery_seconds: float | None
    sources: list[SourceStatusReply]
    backups: int
    newest: AwareDatetime | None
    age_distribution: dict[str, int]
    statistics: dict[str, float]
    retention: str
    surplus: int | None
    next_runs: list[NextRunReply]
    missed: list[str]
    unprotected: list[str]
    undelivered: list[str]
    omitted: int

    @classmethod
    def of(cls, report: "StatusReport", rows: int | None = None) -> Self:
        """Tell the status; overdue sources come first."""
        sources = sorted(report.sources, key=lambda each: (not each.overdue, not each.failure))
        lists = (
            *(report.reasons, sources, report.next_runs),
            *(report.missed, report.unprotected, report.undelivered),
        )
        facts = report.statistics
        return cls(
            health=report.health,
            reasons=[clipped(each) for each in report.reasons[:rows]],
            target_rpo_hours=report.target_rpo_hours,
            target_rto_hours=report.target_rto_hours,
            recovery_seconds=report.recovery_seconds,
            sources=[SourceStatusReply.of(each) for each in sources[:rows]],
            backups=report.backups,
            newest=report.newest,
            age_distribution=dict(report.age_distribution),
            statistics={name: getattr(facts, name) for name in facts.__struct_fields__},
            retention=report.retention,
            surplus=report.surplus,
            next_runs=[
                NextRunReply(schedule=each.schedule, due=each.due)
                for each in report.next_runs[:rows]
            ],
            missed=list(report.missed[:rows]),
            unprotected=list(report.unprotected[:rows]),
            undelivered=[clipped(each) for each in report.undelivered[:rows]],
            omitted=0 if rows is None else sum(max(0, len(each) - rows) for each in lists),
        )


def status_summary(reply: StatusReply) -> str:
    """Give the word first, then why, then what a person asks next."""
    facts = reply.statistics
    lines = [
        f"{reply.health.upper()}" + ("" if reply.reasons else ": every source is young enough."),
        *(f"- {reason}" for reason in reply.reasons),
        *(_source(each, reply.target_rpo_hours) for each in reply.sources),
        f"{reply.backups} backups: "
        + ", ".join(f"{count} of {age}" for age, count in reply.age_distribution.items() if count),
        f"{facts['successes']:g} succeeded, {facts['partial']:g} partly, {facts['failures']:g} "
        f"failed; {size(int(facts['stored_bytes']))} stored, compressed {facts['compression']:g}x.",
        _recovery(reply),
        f"Kept: {reply.retention}"
        + (f"; {reply.surplus} may be forgotten." if reply.surplus else "."),
        *(f"Next: {each.schedule} at {each.due:%Y-%m-%d %H:%M} UTC" for each in reply.next_runs),
        *(f"Not protected: {each}" for each in reply.unprotected),
        *(f"Not delivered: {each}" for each in reply.undelivered),
    ]
    if reply.omitted:
        lines.append(f"({reply.omitted} more left out)")
    return "\n".join(lines)


def _recovery(reply: StatusReply) -> str:
    if reply.recovery_seconds is None:
        return "Time to recover everything: unknown until every source was drilled (run_drill)."
    taken = f"{reply.recovery_seconds:.1f} s by the last drills"
    return f"Time to recover everything: {taken}; {reply.target_rto_hours:g} hours are allowed."


def _source(source: SourceStatusReply, target: float) -> str:
    named = f"{source.component}/{source.source}"
    if source.rpo_hours is None:
        return f"{named}: no backup yet"
    late = ", OVERDUE" if source.overdue else ""
    worst = f", {source.worst_rpo_hours:g} at worst" if source.worst_rpo_hours else ""
    return f"{named}: {source.rpo_hours:g} of {target:g} hours without a copy{worst}{late}"
