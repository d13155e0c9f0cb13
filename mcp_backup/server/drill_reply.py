"""The answer of `run_drill`: for programs, and in a few lines of text."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import AwareDatetime

from mcp_backup.server.replies import FindingReply, Reply
from mcp_backup.server.wording import clipped, size

if TYPE_CHECKING:
    from mcp_backup.drill_facts import DrilledSource, DrillReport


class DrilledReply(Reply):
    """One source of one backup, restored into scratch. `seconds` by phase."""

    source: str
    component: str
    backup_id: str
    pick: Literal["newest", "older"]
    outcome: Literal["proven", "failed", "skipped"]
    size_bytes: int
    seconds: dict[str, float]
    checks_passed: int
    reason: str

    @classmethod
    def of(cls, result: "DrilledSource") -> Self:
        """Tell of one copy."""
        return cls(
            source=result.source,
            component=result.component,
            backup_id=result.backup_id,
            pick=result.pick,
            outcome=result.outcome,
            size_bytes=result.size,
            seconds={phase.name: phase.seconds for phase in result.phases},
            checks_passed=result.checks,
            reason=clipped(result.reason),
        )


class DrillReply(Reply):
    """A drill, done; `record` is its number in the evidence."""

    drill_id: str
    scenario: str
    outcome: Literal["proven", "failed", "incomplete"]
    started: AwareDatetime
    duration_seconds: float
    results: list[DrilledReply]
    findings: list[FindingReply]
    record: int
    seal: str
    omitted: int

    @classmethod
    def of(cls, report: "DrillReport", rows: int | None = None) -> Self:
        """Tell a drill; what failed comes first."""
        results = sorted(report.results, key=lambda each: each.outcome == "proven")
        findings = list(report.every_finding())
        lists = (results, findings)
        return cls(
            drill_id=report.drill_id,
            scenario=report.scenario,
            outcome=report.outcome,
            started=report.started,
            duration_seconds=report.duration_seconds,
            results=[DrilledReply.of(each) for each in results[:rows]],
            findings=[FindingReply.of(each) for each in findings[:rows]],
            record=report.record,
            seal=report.seal,
            omitted=0 if rows is None else sum(max(0, len(each) - rows) for each in lists),
        )


def drill_summary(reply: DrillReply) -> str:
    """Give the verdict first, then what was found, then each copy."""
    words = {
        "proven": "PROVEN: everything was restored and examined",
        "failed": "FAILED",
        "incomplete": "INCOMPLETE: nothing failed, and not everything was tried",
    }
    lines = [
        f"{reply.drill_id} {words[reply.outcome]}, in {reply.duration_seconds} s; "
        f"evidence {reply.record}.",
        *(
            f"- {each.source}: [{each.code}] {each.subject}: {each.message}"
            for each in reply.findings
        ),
        *map(_result, reply.results),
    ]
    if reply.omitted:
        lines.append(f"({reply.omitted} more left out)")
    if reply.outcome == "failed":
        lines.append("Tell the person. Nothing live was touched; other backups may be whole.")
    return "\n".join(lines)


def _result(each: DrilledReply) -> str:
    took = f"{size(each.size_bytes)} in {sum(each.seconds.values()):.2f} s"
    checks = f", {each.checks_passed} checks passed" if each.checks_passed else ""
    why = f": {each.reason}" if each.reason else ""
    named = f"{each.component}/{each.source} {each.pick} {each.backup_id}"
    return f"- {named}: {each.outcome}, {took}{checks}{why}"
