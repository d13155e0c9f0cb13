"""What happened, as plain facts, and what is told of it."""

import json
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from mcp_backup.errors import BackupError, UsageError
from mcp_backup.history_facts import Run, RunSource
from mcp_backup.record import asdict
from mcp_backup.settings_alerts import Event
from mcp_backup.verbs import BackupReport

_MOST_TEXT = 4000  # characters; receivers cut or refuse more
_ASKED_WRONGLY = {UsageError.code, *(error.code for error in UsageError.__subclasses__())}


class SourceFacts(Struct, frozen=True):
    """What became of one source in a run. `suspect` says what looks wrong with its copy, or ""."""

    component: str
    name: str
    outcome: str  # "stored", "unchanged" or "failed"
    message: str = ""
    hint: str = ""
    suspect: str = ""


class RunFacts(Struct, frozen=True):
    """One run of a verb, ended. `code`, `message` and `hint` are the error's, if there was one.

    `asked_wrongly` means that nothing was tried, because the request could not be meant.
    """

    verb: str
    outcome: str  # "completed", "partial", "findings", "failed" or "cancelled"
    scheduled: bool
    message: str = ""
    hint: str = ""
    code: str = ""
    asked_wrongly: bool = False
    sources: tuple[SourceFacts, ...] = ()

    @classmethod
    def of_run(cls, run: Run) -> "RunFacts":
        """Return the facts of a run as the history has it; findings make a copy suspect."""
        sources = tuple(
            SourceFacts(
                source.component,
                source.name,
                source.outcome,
                source.message if source.outcome == "failed" else "",
                suspect=_found(source) if source.outcome != "failed" else "",
            )
            for source in run.sources
        )
        damaged = [s.name for s in run.sources if s.findings and run.verb != "create"]
        found = f"findings in {', '.join(damaged)}" if damaged else ""
        stored = f"{run.backup_id} is stored" if run.backup_id else run.outcome
        interrupted = "the process that ran it died" if run.outcome == "interrupted" else ""
        return cls(
            run.verb,
            "failed" if interrupted else run.outcome,
            run.asker.door == "schedule",
            found or run.message or interrupted or stored,
            code=run.error_code,
            asked_wrongly=run.error_code in _ASKED_WRONGLY,
            sources=sources if run.verb == "create" else (),
        )

    @classmethod
    def of_backup(cls, report: BackupReport, *, scheduled: bool) -> "RunFacts":
        """Return the facts of a backup; findings make a copy suspect."""
        wrong: dict[str, str] = {}
        for finding in (*report.findings, *report.suspect):
            wrong.setdefault(finding.source, finding.message)
        sources = tuple(
            SourceFacts(
                outcome.component.value,
                outcome.name,
                outcome.outcome,
                outcome.failure.message if outcome.failure else "",
                outcome.failure.hint if outcome.failure else "",
                "" if outcome.outcome == "failed" else wrong.get(outcome.name, ""),
            )
            for outcome in report.outcomes
        )
        return cls(
            "create", report.status, scheduled, f"{report.backup_id} is stored", sources=sources
        )

    @classmethod
    def of_error(cls, verb: str, error: BackupError, *, scheduled: bool) -> "RunFacts":
        """Return the facts of a run that an error ended."""
        return cls(
            verb,
            "failed",
            scheduled,
            str(error),
            error.hint,
            error.code,
            asked_wrongly=isinstance(error, UsageError),
        )


class Condition(Struct, frozen=True):
    """Something wrong that lasts. `key` is the same for as long as it is the same trouble."""

    key: str
    event: Event
    subject: str
    message: str
    hint: str = ""


class Alert(Struct, frozen=True):
    """What one receiver is told. `id` is the same each time it is tried, and at each receiver."""

    id: str
    event: Event
    subject: str
    message: str
    hint: str
    host: str
    time: datetime
    since: datetime

    @property
    def title(self) -> str:
        """One line: what, of what, where."""
        return f"{_TITLES[self.event]}: {self.subject} on {self.host}"

    @property
    def text(self) -> str:
        """The facts, and what to do next."""
        return "\n".join(filter(None, [self.message, self.hint]))[:_MOST_TEXT]

    def document(self) -> dict[str, Any]:
        """Return it as JSON-compatible facts; times are ISO 8601 in UTC."""
        facts = {name: str(value)[:_MOST_TEXT] for name, value in asdict(self).items()}
        facts |= {"time": self.time.isoformat(), "since": self.since.isoformat()}
        return facts | {"title": self.title, "text": f"{self.title}\n{self.text}".strip()}

    def encoded(self) -> bytes:
        """Return `document` as JSON text."""
        return json.dumps(self.document()).encode()

    @classmethod
    def decoded(cls, text: str) -> "Alert":
        """Return the alert that `encoded` made.

        Raises:
            ValueError: it did not.
        """
        try:
            facts = json.loads(text)
            return cls(
                _text(facts["id"]),
                Event(facts["event"]),
                _text(facts["subject"]),
                _text(facts["message"]),
                _text(facts["hint"]),
                _text(facts["host"]),
                datetime.fromisoformat(facts["time"]).astimezone(UTC),
                since=datetime.fromisoformat(facts["since"]).astimezone(UTC),
            )
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"no alert: {error!r:.80}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _found(source: RunSource) -> str:
    if not source.findings:
        return ""
    return source.message or f"{source.findings} findings in what was stored"


_TITLES = {
    Event.START: "Backup started",
    Event.SUCCESS: "Backup complete",
    Event.FAILURE: "Failed",
    Event.OVERDUE: "Backup overdue",
    Event.SUSPECT: "Backup suspect",
    Event.RECOVERY: "Recovered",
    Event.TEST: "Test alert",
}
