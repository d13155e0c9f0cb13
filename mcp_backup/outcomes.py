"""From what a backup stored to what is reported of it."""

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Literal

from mcp_backup.catalog import Backup
from mcp_backup.errors import NothingBackedUp
from mcp_backup.manifest import SourceRecord
from mcp_backup.verbs import BackupReport, CreateRequest, SourceFinding, SourceOutcome

if TYPE_CHECKING:
    from mcp_backup.repository.writer import Totals


def backup_report(
    request: CreateRequest,
    backup: Backup,
    records: Sequence[SourceRecord],
    totals: "Totals",
    began: float,
) -> BackupReport:
    """Report a backup that was committed; `began` is when, by the monotonic clock."""
    findings = [SourceFinding.of(r.name, f) for r in records for f in r.findings]
    return BackupReport(
        backup_id=backup.backup_id,
        snapshot_id=backup.id.hex(),
        backup_type=request.backup_type,
        status="partial" if any(r.outcome == "failed" for r in records) else "completed",
        started=backup.snapshot.time,
        duration_seconds=round(monotonic() - began, 3),
        read_bytes=sum(record.read for record in records),
        new_bytes=totals.plain,
        added_bytes=totals.stored,
        verification=_verification(request, findings),
        outcomes=tuple(_outcome(record) for record in records),
        findings=tuple(findings),
        note=request.note,
        suspect=tuple(SourceFinding.of(r.name, f) for r in records for f in r.suspect),
    )


def refuse_if_all_failed(records: Sequence[SourceRecord]) -> None:
    """Raise when there is nothing to store; one failure among one is told as itself."""
    failures = [record.failure for record in records if record.failure]
    if len(failures) < len(records):
        return
    told = "; ".join(failure.message for failure in failures)
    raise NothingBackedUp(
        f"nothing was backed up: {told}",
        hint=" ".join(dict.fromkeys(failure.hint for failure in failures)),
    )


def _outcome(record: SourceRecord) -> SourceOutcome:
    evidence = record.evidence
    return SourceOutcome(
        name=record.name,
        component=record.component,
        kind=record.kind,
        outcome=record.outcome,
        files=len(evidence.files) if evidence else 0,
        read_bytes=record.read,
        added_bytes=record.added,
        duration_seconds=record.duration_seconds,
        failure=record.failure,
        notes=evidence.notes if evidence else (),
    )


def _verification(
    request: CreateRequest, findings: Sequence[SourceFinding]
) -> Literal["passed", "findings", "skipped"]:
    if not request.verify:
        return "skipped"
    return "findings" if findings else "passed"


def bytes_of(records: Sequence[SourceRecord]) -> int:
    """Return the bytes of all files that were captured."""
    return sum(file.size for r in records if r.evidence for file in r.evidence.files)
