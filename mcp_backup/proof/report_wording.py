"""How a report words numbers and verdicts, whatever it is written in."""

from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from mcp_backup.drill_facts import DrillReport
from mcp_backup.proof.evidence import Evidence
from mcp_backup.proof.objectives import Recovery, SourceRecovery
from mcp_backup.proof.walks import WalkOnRecord

Tone = Literal["good", "bad", "unknown"]
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Facts(Protocol):
    """What a page is made of; `report.ReportFacts`."""

    @property
    def evidence(self) -> Evidence:
        """The drills on record."""

    @property
    def recovery(self) -> Recovery:
        """What recovery takes."""

    @property
    def hostname(self) -> str:
        """The machine whose backups they are."""

    @property
    def repository(self) -> str:
        """The start of the repository's id."""

    @property
    def made(self) -> datetime:
        """When the report was made."""

    @property
    def program(self) -> str:
        """What made it."""

    @property
    def walks(self) -> tuple[WalkOnRecord, ...]:
        """Walks through the runbook."""

    @property
    def last(self) -> DrillReport | None:
        """The last drill."""


class Verdict(Struct, frozen=True):
    """One thing said about all of it."""

    tone: Tone
    title: str
    text: str


def verdict(facts: Facts) -> Verdict:
    """Say whether these backups are proven to restore."""
    recovery, last = facts.recovery, facts.last
    if facts.evidence.problems:
        return Verdict("bad", "The record was tampered with", facts.evidence.problems[0])
    if last is None:
        return Verdict("unknown", "Never drilled", "Run `mcp-backup drill`: nothing is proven yet.")
    bad = [reason for word, reason in recovery.reasons() if word == "failing"]
    if bad:
        return Verdict("bad", "Not proven", _sentence(bad[0]))
    missing = [each.key for each in recovery.sources if not each.proven]
    if recovery.unproven:
        return Verdict("unknown", "Proven in part", _sentence(recovery.unproven[0]))
    if missing:
        return Verdict("unknown", "Proven in part", f"Not drilled: {', '.join(missing)}.")
    number = len(recovery.sources)
    return Verdict(
        "good",
        "Proven restorable",
        f"The newest copy of every source ({number}) was restored from the repository alone, "
        "and examined.",
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}".rstrip(".") + "."


def state(source: SourceRecovery) -> tuple[Tone, str]:
    """Word what the last drill of a source showed."""
    if source.last is None:
        return "unknown", "never drilled"
    return ("good", "proven") if source.proven else ("bad", "failed")


def hours(value: float | None) -> str:
    """Word a number of hours."""
    if value is None:
        return "unknown"
    if value < 1:
        return f"{value * 60:.0f} min" if value * 60 >= 1 else "under 1 min"
    return f"{round(value, 1):g} h" if value < 72 else f"{value / 24:.1f} days"


def duration(seconds: float | None) -> str:
    """Word a number of seconds."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Word a number of bytes."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def when(time: datetime | None) -> str:
    """Word a time to the minute."""
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "never"


def worst(facts: Facts) -> float | None:
    """Return the longest data-loss window of all sources, in hours."""
    every = [each.worst_rpo_hours for each in facts.recovery.sources]
    known = [each for each in every if each is not None]
    return max(known) if known else None
