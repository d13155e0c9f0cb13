"""The report in Markdown: for reviews, tickets, and agents."""

from collections.abc import Iterator, Sequence

from mcp_backup.drill_facts import DrilledSource, DrillReport
from mcp_backup.proof.objectives import METHOD, SourceRecovery
from mcp_backup.proof.report_wording import (
    Facts,
    duration,
    hours,
    size,
    state,
    verdict,
    when,
    worst,
)
from mcp_backup.proof.walks import WalkOnRecord


def page(facts: Facts) -> str:
    """Return the report."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: Facts) -> Iterator[str]:
    said, recovery = verdict(facts), facts.recovery
    yield f"# {said.title}"
    yield ""
    yield _cell(said.text)
    yield ""
    where = f"{_cell(facts.hostname)}, repository {facts.repository}"
    yield f"{where}, {when(facts.made)}, {facts.program}."
    yield ""
    yield from _table(
        ("objective", "target", "measured"),
        [
            (
                "data loss (RPO), worst on record",
                hours(recovery.target_rpo_hours),
                hours(worst(facts)),
            ),
            (
                "time to recover (RTO), whole system",
                hours(recovery.target_rto_hours),
                duration(recovery.seconds),
            ),
        ],
    )
    yield "## Sources, in start order"
    yield ""
    head = ("source", "last drill", "time", "size", "loss now", "worst loss", "drilled")
    yield from _table(head, [_source(each) for each in recovery.sources])
    if recovery.unplaced:
        names = _cell(", ".join(recovery.unplaced))
        yield f"Without the time to put in place, which needs a server: {names}."
        yield ""
    if facts.last:
        yield from _drill(facts.last)
    if facts.walks:
        yield "## Runbook, walked"
        yield ""
        columns = ("page", "how", "begun", "steps", "time", "to its end")
        yield from _table(columns, [_walk(each) for each in reversed(facts.walks)])
    yield "## Record"
    yield ""
    yield from _record(facts)
    yield "## How it is measured"
    yield ""
    yield METHOD


def _source(each: SourceRecovery) -> tuple[str, ...]:
    return (
        each.key,
        state(each)[1],
        duration(each.seconds),
        size(each.last.size) if each.last else "unknown",
        hours(each.rpo_hours),
        hours(each.worst_rpo_hours),
        when(each.drilled),
    )


def _walk(each: WalkOnRecord) -> tuple[str, ...]:
    ended = "yes" if each.complete else "NO"
    begun = when(each.started)
    return (each.page, each.mode, begun, str(each.steps), duration(each.seconds), ended)


def _drill(drill: DrillReport) -> Iterator[str]:
    yield f"## Last drill: {drill.drill_id}"
    yield ""
    yield f"{when(drill.started)}, {duration(drill.duration_seconds)}, {drill.outcome}."
    yield ""
    for finding in drill.every_finding():
        yield f"* **{_cell(finding.source)}** `{finding.code}` {_cell(finding.subject)}: " + _cell(
            finding.message
        )
    yield ""
    head = ("source", "backup", "pick", "outcome", "size", "phases")
    yield from _table(head, [_result(each) for each in drill.results])


def _result(each: DrilledSource) -> tuple[str, ...]:
    phases = ", ".join(f"{phase.name} {duration(phase.seconds)}" for phase in each.phases)
    told = f"{phases}: {each.reason}" if each.reason else phases
    return (each.key, each.backup_id, each.pick, each.outcome, size(each.size), told)


def _record(facts: Facts) -> Iterator[str]:
    for problem in facts.evidence.problems:
        yield f"* **{_cell(problem)}**"
    if not facts.evidence.problems:
        yield "The chain holds: no record was changed, left out or moved."
    yield ""
    rows = [
        (
            str(record.number),
            when(record.drill.started),
            record.drill.outcome,
            str(len(list(record.drill.every_finding()))),
            f"`{record.seal[:16]}`",
        )
        for record in reversed(facts.evidence.records[-20:])
    ]
    yield from _table(("number", "begun", "outcome", "findings", "seal"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(text: str) -> str:
    """Keep what strangers named from being markup."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
