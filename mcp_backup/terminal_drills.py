"""Drills and their evidence as a person reads them: lines of text, most important first."""

from collections.abc import Sequence

from mcp_backup.drill_facts import DrilledSource, DrillReport
from mcp_backup.terminal import count, moment, seconds, size, table

_WORDS = {
    "proven": "proven: everything was restored and examined",
    "failed": "FAILED",
    "incomplete": "incomplete: nothing failed, and not everything was tried",
}


def drilled(report: DrillReport) -> list[str]:
    """Word a drill: the verdict, what was found, every copy with its times."""
    about = f" ({report.scenario})" if report.scenario else ""
    lines = [
        f"{report.drill_id}{about}  {_WORDS[report.outcome]}; "
        f"{seconds(report.duration_seconds)}, evidence {report.record}",
        "",
    ]
    if report.results:
        head = ("SOURCE", "PART", "BACKUP", "PICK", "OUTCOME", "SIZE", "TIME")
        lines += [*table(head, *map(_result, report.results)), ""]
    opening = ", ".join(f"{phase.name} {phase.seconds:.2f} s" for phase in report.phases)
    lines.append(f"before that: {opening or 'nothing'}")
    for result in report.results:
        phases = ", ".join(f"{phase.name} {phase.seconds:.2f} s" for phase in result.phases)
        checks = f"; {count(result.checks, 'check')} passed" if result.checks else ""
        why = f"; {result.reason}" if result.reason else ""
        lines.append(f"{result.source} of {result.backup_id}: {phases or 'not begun'}{checks}{why}")
    found = list(report.every_finding())
    lines += ["", f"{count(len(found), 'finding')}:"] if found else []
    lines += [f"  {each.source}: [{each.code}] {each.subject}: {each.message}" for each in found]
    return lines


def _result(result: DrilledSource) -> tuple[str, ...]:
    return (
        result.source,
        result.component,
        result.backup_id,
        result.pick,
        result.outcome if result.outcome != "failed" else "FAILED",
        size(result.size),
        seconds(result.seconds),
    )


def listed_evidence(drills: Sequence[DrillReport], problems: Sequence[str]) -> list[str]:
    """Word the evidence: whether it holds, and the drills on record, newest first."""
    verdict = "the chain holds" if not problems else "THE CHAIN IS BROKEN"
    lines = [f"evidence: {count(len(drills), 'drill')} on record; {verdict}"]
    lines += [f"  {problem}" for problem in problems]
    if drills:
        head = ("NUMBER", "BEGUN", "DRILL", "OUTCOME", "COPIES", "FINDINGS", "TIME")
        lines += ["", *table(head, *(_row(each) for each in reversed(drills)))]
    return lines


def _row(drill: DrillReport) -> tuple[str, ...]:
    return (
        str(drill.record),
        moment(drill.started),
        drill.drill_id,
        drill.outcome,
        str(len(drill.results)),
        str(len(list(drill.every_finding()))),
        seconds(drill.duration_seconds),
    )
