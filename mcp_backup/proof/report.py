"""The evidence as a page: HTML or Markdown for people, JSON for programs. Nothing secret in it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from anyio import to_thread
from msgspec import Struct

from mcp_backup import __version__
from mcp_backup.drill_facts import DrillReport
from mcp_backup.durable import write_durably
from mcp_backup.engine import Engine
from mcp_backup.errors import UsageError
from mcp_backup.proof import report_html, report_markdown
from mcp_backup.proof.drill import ledger_of
from mcp_backup.proof.evidence import Evidence, plain
from mcp_backup.proof.objectives import METHOD, Recovery, compared, recovery
from mcp_backup.proof.walks import WalkOnRecord, read_walks
from mcp_backup.record import asdict

_READABLE = 0o644


class ReportFacts(Struct, frozen=True):
    """What a report tells."""

    evidence: Evidence
    recovery: Recovery
    hostname: str
    repository: str
    made: datetime
    walks: tuple[WalkOnRecord, ...] = ()
    program: str = f"mcp-backup {__version__}"

    @property
    def last(self) -> DrillReport | None:
        """The last drill on record."""
        return self.evidence.records[-1].drill if self.evidence.records else None


async def gathered(engine: Engine) -> ReportFacts:
    """Gather what a report tells. Changes nothing.

    Raises:
        HistoryUnusable: history or evidence cannot be read.
    """
    evidence = await compared(engine, await ledger_of(engine).read())
    return ReportFacts(
        evidence=evidence,
        recovery=await recovery(engine, evidence),
        hostname=engine.hostname,
        repository=engine.repository.config.id[:8],
        made=engine.now(),
        walks=await to_thread.run_sync(read_walks, engine.settings.state_dir),
    )


def rendered(facts: ReportFacts, form: str) -> str:
    """Return the report as "html", "md" or "json".

    Raises:
        UsageError: there is no such form.
    """
    if form == "html":
        return report_html.page(facts)
    if form == "md":
        return report_markdown.page(facts)
    if form == "json":
        return json.dumps(document(facts), indent=1, ensure_ascii=False, default=str) + "\n"
    raise UsageError(
        f"a report cannot be written as {form!r}",
        hint="Name a file that ends in .html, .md or .json. Nothing was written.",
    )


def document(facts: ReportFacts) -> dict[str, Any]:
    """Return the report as JSON values.

    Every record has its digest and seal, to be checked by whoever has the repository's key.
    """
    return {
        "program": facts.program,
        "made": facts.made.isoformat(),
        "hostname": facts.hostname,
        "repository": facts.repository,
        "method": METHOD,
        "problems": list(facts.evidence.problems),
        "recovery": asdict(facts.recovery),
        "walks": [asdict(walk) for walk in facts.walks],
        "records": [
            {
                "number": record.number,
                "previous": record.previous,
                "digest": record.digest,
                "seal": record.seal,
                "drill": plain(record.drill),
            }
            for record in facts.evidence.records
        ],
    }


def write_report(path: Path, facts: ReportFacts) -> None:
    """Make `path` a report of the form that its name ends in. Blocks.

    Raises:
        UsageError: it has another ending, or cannot be written.
    """
    text = rendered(facts, path.suffix.lstrip(".").lower())
    try:
        write_durably(path, text.encode(), _READABLE)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            hint="Name a file in a directory that exists. Nothing was written.",
        ) from error
