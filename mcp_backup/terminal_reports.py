"""What each verb's answer looks like to a person: lines of text, most important first."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mcp_backup.terminal import count, moment, seconds, size, table
from mcp_backup.verbs import (
    BackupEntry,
    BackupPage,
    BackupReport,
    CheckReport,
    PruneReport,
    SourceFinding,
    SourceOutcome,
    VerifyReport,
    holding,
)

if TYPE_CHECKING:
    from mcp_backup.verbs_restores import (
        PlannedTarget,
        RestorePlan,
        RestoreReport,
        UndoPoint,
        UndoReport,
    )
    from mcp_backup.verbs_upkeep import Diagnosis, ExportReport, ForgetReport

_MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}
_READ_BACK = {
    "passed": "verified",
    "findings": "VERIFICATION FOUND DAMAGE",
    "skipped": "not verified",
}


def created(report: BackupReport) -> list[str]:
    """Word a backup that was made, source by source."""
    lines = [
        f"{report.backup_id}  {report.status}, {_READ_BACK[report.verification]}; "
        f"read {size(report.read_bytes)}, added {size(report.added_bytes)} "
        f"in {seconds(report.duration_seconds)}",
        "",
        *table(
            ("SOURCE", "PART", "OUTCOME", "FILES", "READ", "ADDED"), *map(_outcome, report.outcomes)
        ),
    ]
    for outcome in report.outcomes:
        if outcome.failure is not None:
            lines += ["", f"{outcome.name}: [{outcome.failure.code}] {outcome.failure.message}"]
            lines += [f"  next: {outcome.failure.hint}"] if outcome.failure.hint else []
        lines += [f"{outcome.name}: {note}" for note in outcome.notes]
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines += [
        f"SUSPECT: {each.source}: {each.subject}: {each.message}; stored, and not counted as good"
        for each in report.suspect
    ]
    return lines + _findings(report.findings)


def _outcome(outcome: SourceOutcome) -> tuple[str, ...]:
    return (
        outcome.name,
        outcome.component,
        outcome.outcome,
        str(outcome.files),
        size(outcome.read_bytes),
        size(outcome.added_bytes),
    )


def _findings(findings: Sequence[SourceFinding]) -> list[str]:
    if not findings:
        return []
    return ["", *(f"{item.source}: [{item.code}] {item.message}" for item in findings)]


def listed(page: BackupPage) -> list[str]:
    """Word a page of backups, newest first."""
    damage = [f"{name} is damaged and left out: run `mcp-backup check`" for name in page.damaged]
    if not page.entries:
        return ["no backups, or none that match", *damage]
    rows = [
        (
            entry.backup_id or entry.snapshot_id[:8],
            moment(entry.time),
            entry.backup_type,
            entry.status if entry.ours else f"by another program on {entry.hostname}",
            size(entry.total_bytes),
            size(entry.added_bytes),
            ", ".join(holding(entry.held_by)) or "nothing",
            moment(entry.verified) if entry.verified else "-",
            moment(entry.drilled) if entry.drilled else "-",
            ", ".join((*map(partial(_named, entry), entry.sources), *map(_failed, entry.failed))),
        )
        for entry in page.entries
    ]
    head = ("BACKUP", "TIME", "TYPE", "STATUS", "SIZE", "ADDED")
    lines = table((*head, "HELD BY", "VERIFIED", "DRILLED", "SOURCES"), *rows)
    if page.next_cursor:
        lines += ["", f"{len(rows)} of {page.total}; more: --cursor {page.next_cursor}"]
    return lines + damage


def _named(entry: BackupEntry, source: str) -> str:
    return f"{source} SUSPECT" if source in entry.suspect else source


def _failed(source: str) -> str:
    return f"{source} FAILED"


def verified(report: VerifyReport) -> list[str]:
    """Word a verification."""
    verdict = "no findings" if report.ok else count(len(report.findings), "finding")
    return [
        f"{report.backup_id}  {verdict} at level {report.level}: "
        f"{count(len(report.sources), 'source')}, read {size(report.read_bytes)} "
        f"in {seconds(report.duration_seconds)}",
        *_findings(report.findings),
    ]


def planned(plan: "RestorePlan") -> list[str]:
    """Word a plan: what would happen to what, who has it open, and what would be lost."""
    where = "over the live data" if plan.target == "original" else f"into {plan.scratch}"
    what = f"restore {plan.backup_id} {where}"
    if plan.undoes:
        what = f"put live data back as it was before restore {plan.undoes}"
    lines = [
        f"plan {plan.plan_id}: {what}; good until {moment(plan.expires)}",
        "",
        *table(("SOURCE", "ACTION", "NOW", "BACKUP", "PATH"), *map(_target, plan.targets)),
    ]
    for target in plan.targets:
        if target.lost:
            lines += ["", f"{target.source}: {target.lost}"]
        holders = {holder.pid: holder.command for holder in target.holders}  # one for many files
        lines += [
            f"{target.source}: open in process {pid} ({command})"
            for pid, command in holders.items()
        ]
    lines += [
        "",
        f"needs {size(plan.needed_bytes)}; {size(plan.free_bytes)} are free",
        *(f"warning: {warning}" for warning in plan.warnings),
    ]
    return lines


def _target(target: "PlannedTarget") -> tuple[str, ...]:
    present = target.live_state == "present"
    now = size(target.live_bytes) if present else target.live_state
    return (target.source, target.action, now, size(target.backup_bytes), target.original)


def restored(report: "RestoreReport") -> list[str]:
    """Word a restore that was done."""
    lines = [
        f"{report.status} {target.source}: {size(target.size)} at {target.path}"
        for target in report.targets
    ]
    lines.append(f"from {report.backup_id} in {seconds(report.duration_seconds)}")
    if report.undo_id:
        lines.append(f"to take it back: mcp-backup undo {report.undo_id}")
    return lines


def undone(report: "UndoReport") -> list[str]:
    """Word an undo that was done."""
    lines = [f"put back {target.source}: {target.path}" for target in report.targets]
    return [
        *lines,
        f"as before restore {report.restore_id}, in {seconds(report.duration_seconds)}",
    ]


def undo_points(points: "Sequence[UndoPoint]") -> list[str]:
    """Word the restores that can be undone."""
    if not points:
        return ["no restore can be undone"]
    rows = [
        (
            point.restore_id,
            moment(point.time),
            point.backup_id,
            size(point.size),
            ", ".join(point.sources),
        )
        for point in points
    ]
    return table(("RESTORE", "TIME", "FROM", "KEPT", "SOURCES"), *rows)


def checked(report: CheckReport) -> list[str]:
    """Word a check of the repository."""
    verdict = "no findings" if report.ok else count(len(report.findings), "finding")
    return [
        f"{verdict} at level {report.level}: {count(report.snapshots, 'snapshot')}, "
        f"{count(report.packs, 'pack')}, {count(report.blobs, 'blob')}, "
        f"read {size(report.read_bytes)} in {seconds(report.duration_seconds)}",
        *(f"[{item.code}] {item.subject}: {item.message}" for item in report.findings),
    ]


def forgotten(report: "ForgetReport") -> list[str]:
    """Word what retention keeps and why, and what it dropped or would drop."""
    dropped = "to drop" if report.dry_run else "dropped"
    rows = [
        (backup.backup_id, moment(backup.time), backup.backup_type, "; ".join(backup.reasons))
        for backup in report.kept
    ]
    lines = [
        f"{dropped} {count(len(report.forgotten), 'backup')}, kept {len(report.kept)}: "
        f"{report.policy}",
        "",
        *table(("KEPT", "TIME", "TYPE", "BECAUSE"), *rows),
    ]
    if report.forgotten:
        gone = [(each.backup_id, moment(each.time), each.backup_type) for each in report.forgotten]
        lines += ["", *table((dropped.upper(), "TIME", "TYPE"), *gone)]
    if report.prune:
        lines += ["", *pruned(report.prune)]
    return lines + [f"warning: {warning}" for warning in report.warnings]


def pruned(report: PruneReport) -> list[str]:
    """Word what became of the packs."""
    freed, grew = max(report.freed_bytes, 0), max(-report.freed_bytes, 0)
    about, would = ("about ", "would be ") if report.dry_run else ("", "")
    told = f"{about}{size(freed)} {would}freed" if not grew else f"{size(grew)} more than before"
    rows = [
        (group.fate, str(group.packs), size(group.size), group.reason) for group in report.packs
    ]
    return [
        f"{told}; {size(report.unused_bytes)} stay that none of "
        f"{count(report.snapshots, 'snapshot')} needs; in {seconds(report.duration_seconds)}",
        *table(("FATE", "PACKS", "SIZE", "BECAUSE"), *rows),
    ]


def exported(report: "ExportReport") -> list[str]:
    """Word an export."""
    return [f"{report.path}: {size(report.size)} from {report.backup_id}", report.proof]


def diagnosed(diagnoses: "Sequence[Diagnosis]") -> list[str]:
    """Word what `doctor` saw, in the order it looked."""
    lines: list[str] = []
    for diagnosis in diagnoses:
        lines.append(f"{_MARKS[diagnosis.level]}  {diagnosis.subject}: {diagnosis.message}")
        if diagnosis.hint and diagnosis.level != "ok":
            lines.append(f"           next: {diagnosis.hint}")
    return lines
