"""drill, evidence: proving that backups can be restored, and what says so."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from mcp_backup.cli.arguments import separated
from mcp_backup.cli.session import session
from mcp_backup.drill_facts import DrillReport, DrillRequest
from mcp_backup.engine import Engine
from mcp_backup.proof.drill import drill as run
from mcp_backup.proof.drill import ledger_of
from mcp_backup.proof.evidence import Evidence
from mcp_backup.proof.objectives import compared
from mcp_backup.proof.report import gathered, write_report
from mcp_backup.terminal_drills import drilled, listed_evidence

_FINDINGS = 3


class ScenarioChoice(StrEnum):
    """The disasters that the runbook has a page for."""

    SINGLE_SERVER = "single-server"
    DATABASE_CORRUPTION = "database-corruption"
    COMPLETE_FAILURE = "complete-failure"
    DATA_LOSS = "data-loss"


class EvidenceShown(Struct, frozen=True):
    """The drills on record, and what is wrong with the record."""

    ok: bool
    problems: Sequence[str]
    drills: Sequence[DrillReport]
    written: str = ""


def drill(
    context: typer.Context,
    *,
    sources: Annotated[
        list[str] | None, typer.Option(help="Only these sources: names, separated by commas.")
    ] = None,
    scenario: Annotated[
        ScenarioChoice | None, typer.Option(help="What this disaster would have restored.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="The time budget, for this time.")
    ] = None,
) -> int:
    """Restore into scratch for real, examine and time it, and put it on record.

    The newest backup and a random older one of every source. Exits with 3 when something failed.
    """
    this = session(context)
    request = DrillRequest(separated(sources), scenario.value if scenario else None, minutes)
    report = this.run(
        lambda engine, listener: run(engine, request, listener),
        unfinished="Nothing is on record, and nothing live was touched.",
    )
    this.answer("drill_reply:DrillReply.of", report, drilled(report))
    return 0 if report.ok else _FINDINGS


def evidence(
    context: typer.Context,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a report there: .html, .md or .json.", metavar="FILE"),
    ] = None,
) -> int:
    """Say whether the record of drills holds, and list it. Exits with 3 when it was changed."""
    this = session(context)
    if out is None:
        found = this.run(lambda engine, _: _evidence(engine), unfinished="Nothing was written.")
    else:
        facts = this.run(lambda engine, _: gathered(engine), unfinished="Nothing was written.")
        found = facts.evidence
        write_report(this.surroundings.cwd / out.expanduser(), facts)
    drills = tuple(record.drill for record in found.records)
    lines = listed_evidence(drills, found.problems)
    lines += [f"written: {out}"] if out else []
    shown = EvidenceShown(not found.problems, found.problems, drills, str(out or ""))
    this.terminal.result(shown, lines)
    return 0 if shown.ok else _FINDINGS


async def _evidence(engine: Engine) -> Evidence:
    return await compared(engine, await ledger_of(engine).read())
