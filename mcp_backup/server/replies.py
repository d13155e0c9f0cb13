"""What clients see: one model per answer, flat and small.

`of` builds a reply from a report. With `rows` it shows at most that many items of each inner
list and says in `omitted` how many it left out; without, everything.

Only types that every client can check are used: aware times, seconds as finite floats, paths as
plain strings. Nothing here knows MCP; the terminal's `--json` prints the same models.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from mcp_backup.server.wording import clipped, readable, sentence
from mcp_backup.sources.source import Holder
from mcp_backup.verbs import BackupReport, SourceFinding, SourceOutcome, VerifyReport

if TYPE_CHECKING:
    from mcp_backup.verbs_restores import (
        PlannedTarget,
        RestoredTarget,
        RestorePlan,
        RestoreReport,
        UndoReport,
    )


class Reply(BaseModel):
    """An answer: frozen, and with nothing in it that JSON cannot carry or a reader is misled by."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: readable(value) for name, value in fields.items()}


class OutcomeReply(Reply):
    """What became of one source. `error` is "" unless it failed."""

    source: str
    component: str
    kind: str
    outcome: Literal["stored", "unchanged", "failed"]
    files: int
    read_bytes: int
    added_bytes: int
    duration_seconds: float
    error: str
    notes: list[str]

    @classmethod
    def of(cls, outcome: SourceOutcome, rows: int | None) -> Self:
        """Tell one outcome."""
        failure = outcome.failure
        return cls(
            source=outcome.name,
            component=outcome.component,
            kind=outcome.kind,
            outcome=outcome.outcome,
            files=outcome.files,
            read_bytes=outcome.read_bytes,
            added_bytes=outcome.added_bytes,
            duration_seconds=_seconds(outcome.duration_seconds),
            error=sentence(failure.code, failure.message, failure.hint) if failure else "",
            notes=[clipped(note) for note in outcome.notes[:rows]],
        )


class FindingReply(Reply):
    """One difference between a copy and what it should be."""

    source: str
    code: str
    subject: str
    message: str

    @classmethod
    def of(cls, finding: SourceFinding) -> Self:
        """Tell one finding."""
        return cls(
            source=finding.source,
            code=finding.code,
            subject=clipped(finding.subject),
            message=clipped(finding.message),
        )


class BackupReply(Reply):
    """One backup, done."""

    backup_id: str
    snapshot_id: str
    backup_type: str
    status: Literal["completed", "partial"]
    verification: Literal["passed", "findings", "skipped"]
    started: AwareDatetime
    duration_seconds: float
    read_bytes: int
    added_bytes: int
    outcomes: list[OutcomeReply]
    findings: list[FindingReply]
    suspect: list[FindingReply]
    omitted: int
    warnings: list[str]
    note: str

    @classmethod
    def of(cls, report: BackupReport, rows: int | None = None) -> Self:
        """Tell a backup; what failed comes first."""
        outcomes = sorted(report.outcomes, key=lambda each: each.outcome != "failed")
        return cls(
            backup_id=report.backup_id,
            snapshot_id=report.snapshot_id,
            backup_type=report.backup_type,
            status=report.status,
            verification=report.verification,
            started=report.started,
            duration_seconds=_seconds(report.duration_seconds),
            read_bytes=report.read_bytes,
            added_bytes=report.added_bytes,
            outcomes=[OutcomeReply.of(each, rows) for each in outcomes[:rows]],
            findings=[FindingReply.of(each) for each in report.findings[:rows]],
            suspect=[FindingReply.of(each) for each in report.suspect[:rows]],
            omitted=_omitted(rows, outcomes, report.findings, report.suspect),
            warnings=[clipped(each) for each in report.warnings],
            note=clipped(report.note),
        )


class VerifyReply(Reply):
    """What a verification found; `ok` means that everything agreed."""

    backup_id: str
    snapshot_id: str
    level: str
    ok: bool
    findings: list[FindingReply]
    sources: list[str]
    omitted: int
    read_bytes: int
    duration_seconds: float

    @classmethod
    def of(cls, report: VerifyReport, rows: int | None = None) -> Self:
        """Tell a verification."""
        return cls(
            backup_id=report.backup_id,
            snapshot_id=report.snapshot_id,
            level=report.level,
            ok=report.ok,
            findings=[FindingReply.of(each) for each in report.findings[:rows]],
            sources=list(report.sources[:rows]),
            omitted=_omitted(rows, report.findings, report.sources),
            read_bytes=report.read_bytes,
            duration_seconds=_seconds(report.duration_seconds),
        )


class TargetReply(Reply):
    """One source in a restore: what would happen to it, or did.

    `path` is where its data goes or went. `live_state` ("present", "absent", "damaged"),
    `live_bytes`, `holders` and `lost` (the newer live data it overwrites) are told of plans only.
    """

    source: str
    component: str
    action: Literal["replace", "create", "stage", "restored", "staged"]
    path: str
    live_state: str
    live_bytes: int
    backup_bytes: int
    holders: list[str]
    lost: str

    @classmethod
    def planned(cls, target: "PlannedTarget", rows: int | None) -> Self:
        """Tell what would happen."""
        return cls(
            source=target.source,
            component=target.component,
            action=target.action,
            path=target.original,
            live_state=target.live_state,
            live_bytes=target.live_bytes,
            backup_bytes=target.backup_bytes,
            holders=list(dict.fromkeys(_holder(each) for each in target.holders))[:rows],
            lost=clipped(target.lost),
        )

    @classmethod
    def done(cls, target: "RestoredTarget", action: Literal["restored", "staged"]) -> Self:
        """Tell what happened."""
        return cls(
            source=target.source,
            component=target.component,
            action=action,
            path=target.path,
            live_state="",
            live_bytes=0,
            backup_bytes=target.size,
            holders=[],
            lost="",
        )


class RestoreReply(Reply):
    """A restore, planned or done. Ids are "" where there is none.

    `approval` is what it still needs; it, `expires` and the bytes are told of plans only.
    """

    status: Literal["planned", "restored", "staged"]
    plan_id: str
    restore_id: str
    undo_id: str
    backup_id: str
    target: Literal["original", "scratch"]
    targets: list[TargetReply]
    omitted: int
    needed_bytes: int
    free_bytes: int
    approval: Literal["none", "human", "elicit", "token"]
    expires: AwareDatetime | None
    warnings: list[str]
    duration_seconds: float
    next_step: str

    @classmethod
    def planned(cls, plan: "RestorePlan", rows: int | None = None) -> Self:
        """Tell a plan: nothing has been changed."""
        return cls(
            status="planned",
            plan_id=plan.plan_id,
            restore_id="",
            undo_id="",
            backup_id=plan.backup_id,
            target=plan.target,
            targets=[TargetReply.planned(each, rows) for each in plan.targets[:rows]],
            omitted=_omitted(rows, plan.targets),
            needed_bytes=plan.needed_bytes,
            free_bytes=plan.free_bytes,
            approval="none" if plan.approved and plan.approval != "token" else plan.approval,
            expires=plan.expires,
            warnings=[clipped(each) for each in plan.warnings[:rows]],
            duration_seconds=0.0,
            next_step=_how_to_go_on(plan),
        )

    @classmethod
    def done(cls, report: "RestoreReport", rows: int | None = None) -> Self:
        """Tell a restore that happened."""
        staged = report.status == "staged"
        undo = f"To put the previous data back: undo_restore with restore_id={report.undo_id}."
        return cls(
            status=report.status,
            plan_id=report.plan_id,
            restore_id=report.restore_id,
            undo_id=report.undo_id,
            backup_id=report.backup_id,
            target="scratch" if staged else "original",
            targets=[TargetReply.done(each, report.status) for each in report.targets[:rows]],
            omitted=_omitted(rows, report.targets),
            needed_bytes=0,
            free_bytes=0,
            approval="none",
            expires=None,
            warnings=[],
            duration_seconds=_seconds(report.duration_seconds),
            next_step="Live data was not touched." if staged else undo,
        )


class PutBackReply(Reply):
    """One source as it was before a restore; `size_bytes` is what was put back."""

    source: str
    component: str
    path: str
    size_bytes: int

    @classmethod
    def of(cls, target: "RestoredTarget") -> Self:
        """Tell what was put back."""
        return cls(
            source=target.source,
            component=target.component,
            path=target.path,
            size_bytes=target.size,
        )


class UndoReply(Reply):
    """An undo, done: live data is as it was before the restore."""

    restore_id: str
    targets: list[PutBackReply]
    omitted: int
    duration_seconds: float

    @classmethod
    def of(cls, report: "UndoReport", rows: int | None = None) -> Self:
        """Tell an undo."""
        return cls(
            restore_id=report.restore_id,
            targets=[PutBackReply.of(each) for each in report.targets[:rows]],
            omitted=_omitted(rows, report.targets),
            duration_seconds=_seconds(report.duration_seconds),
        )


def _how_to_go_on(plan: "RestorePlan") -> str:
    again = f"call restore_backup with plan_id={plan.plan_id}"
    if plan.undoes:
        again = f"call undo_restore with restore_id={plan.undoes}"
    if plan.approval == "token":
        return f"Show this plan to the person; if they agree, {again}."
    if plan.approval == "none" or plan.approved:
        return f"To do it, {again}."
    if plan.approval == "human":
        return (
            "Show this plan to the person; to agree, they run "
            f"`mcp-backup approve {plan.plan_id}` in a terminal. Then {again}."
        )
    return f"To do it, {again}; the person will be asked to confirm."


def _holder(holder: Holder) -> str:
    return f"{holder.command} (pid {holder.pid})"


def _seconds(seconds: float) -> float:
    return round(seconds, 3)


def _omitted(rows: int | None, *lists: Sequence[object]) -> int:
    return 0 if rows is None else sum(max(0, len(each) - rows) for each in lists)
