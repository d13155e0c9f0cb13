"""Status and history as a person reads them: lines of text, most important first."""

from collections.abc import Sequence

from mcp_backup.history_facts import Asker, Run
from mcp_backup.status_report import SourceStatus, StatusReport
from mcp_backup.terminal import count, moment, seconds, size, table


def stood(report: StatusReport) -> list[str]:
    """Word the status: the word, why, then the facts."""
    facts = report.statistics
    tried = facts.successes + facts.partial + facts.failures + facts.interrupted
    lines = [report.health, *(f"  {reason}" for reason in report.reasons), ""]
    if report.sources:
        head = ("SOURCE", "PART", "LAST SUCCESS", "RPO", "WORST", "TARGET", "RECOVERY", "")
        lines += [*table(head, *map(_source, report.sources)), ""]
    lines += [f"{each.source}: {each.cut}" for each in report.sources if each.cut]
    lines += [
        f"backups: {report.backups}"
        + "".join(f"; {age}: {number}" for age, number in report.age_distribution.items()),
        f"runs: {tried} on record, {facts.successes} succeeded, {facts.partial} in part, "
        f"{facts.failures} failed, {facts.interrupted} interrupted",
        f"sizes: read {size(facts.read_bytes)}, new {size(facts.new_bytes)}, "
        f"stored {size(facts.stored_bytes)}, compressed {facts.compression:g} times; "
        f"{seconds(facts.mean_seconds)} on average, {seconds(facts.longest_seconds)} at most",
        f"recovery of everything: {_recovery(report)}",
        f"retention: {report.retention}; {_surplus(report.surplus)}",
        *(f"next: {each.schedule} at {moment(each.due)}" for each in report.next_runs),
        *([] if report.next_runs else ["next: nothing is scheduled"]),
        *(f"not protected: {each}" for each in report.unprotected),
        *(f"not delivered: {each}" for each in report.undelivered),
    ]
    return lines


def _recovery(report: StatusReport) -> str:
    if report.recovery_seconds is None:
        return "unknown until every source was drilled; run `mcp-backup drill`"
    taken = seconds(report.recovery_seconds)
    return f"{taken} by the last drills; target {report.target_rto_hours:g} h"


def _surplus(number: int | None) -> str:
    if number is None:
        return "too many backups to judge now, see `mcp-backup forget --dry-run`"
    return f"{count(number, 'backup')} may be forgotten" if number else "nothing to forget"


def _source(source: SourceStatus) -> tuple[str, ...]:
    return (
        source.source,
        source.component,
        moment(source.last_success) if source.last_success else "never",
        _hours(source.rpo_hours),
        _hours(source.worst_rpo_hours),
        _hours(source.target_rpo_hours),
        "-" if source.recovery_seconds is None else seconds(source.recovery_seconds),
        "OVERDUE"
        if source.overdue
        else "failed"
        if source.failure
        else "SUSPECT"
        if source.suspect
        else "",
    )


def _hours(hours: float | None) -> str:
    return "-" if hours is None else f"{hours:.1f} h"


def listed_runs(runs: Sequence[Run]) -> list[str]:
    """Word runs, newest first: when, what, who, and how it ended."""
    if not runs:
        return ["nothing is on record, or nothing that matches"]
    return table(("BEGUN", "WHAT", "OUTCOME", "BACKUP", "BY", "ABOUT"), *map(_run, runs))


def _run(run: Run) -> tuple[str, ...]:
    names = ", ".join(source.name for source in run.sources)
    about = (run.subject, f"[{run.error_code}]" if run.error_code else "", run.message, names)
    return (
        moment(run.begun),
        run.verb,
        run.outcome,
        run.backup_id,
        asker(run.asker),
        " ".join(part for part in about if part),
    )


def asker(who: Asker) -> str:
    """Word who asked for a run."""
    name = " ".join(part for part in (who.name, who.version) if part)
    behind = ", ".join(part for part in (name, who.tool, who.slot) if part)
    return f"{who.door} ({behind})" if behind else who.door
