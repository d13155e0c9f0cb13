"""Replies in a few lines of text: for people, and for clients that hand only text to the model.

Everything needed to go on is in them: ids, what failed and why, the next step.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mcp_backup.server.list_reply import BackupsReply, EntryReply
from mcp_backup.server.replies import (
    BackupReply,
    FindingReply,
    OutcomeReply,
    RestoreReply,
    TargetReply,
    UndoReply,
    VerifyReply,
)
from mcp_backup.server.wording import size

if TYPE_CHECKING:
    from mcp_backup.verbs_restores import UndoPoint

_VERIFICATION = {
    "passed": "read back and verified",
    "findings": "VERIFICATION FOUND DIFFERENCES",
    "skipped": "not verified",
}


def backup_summary(reply: BackupReply) -> str:
    """Say what was stored, and line by line what was not."""
    head = (
        f"{reply.backup_id} {'PARTIAL' if reply.status == 'partial' else reply.status}: "
        f"{size(reply.read_bytes)} read, {size(reply.added_bytes)} added "
        f"in {reply.duration_seconds} s, {_VERIFICATION[reply.verification]}."
    )
    rows = [*map(_outcome, reply.outcomes), *map(_finding, reply.findings)]
    rows += [f"- SUSPECT {_finding(each)[2:]}" for each in reply.suspect]
    warned = "\n".join(f"Warning: {each}" for each in reply.warnings)
    return _lines(head, rows, reply.omitted, warned)


def backups_summary(reply: BackupsReply) -> str:
    """Give each backup a line."""
    if not reply.backups and not reply.damaged:
        return "No backups match." if reply.total == 0 else "No more backups."
    head = f"{len(reply.backups)} of {reply.total} backups, newest first:"
    more = f"Older ones: cursor={reply.next_cursor}" if reply.next_cursor else ""
    damaged = [f"{name} is damaged and left out: run `mcp-backup check`" for name in reply.damaged]
    return _lines(head, [*map(_entry, reply.backups), *damaged], last=more)


def verify_summary(reply: VerifyReply) -> str:
    """Give the verdict, and each finding."""
    verdict = "everything agrees" if reply.ok else "DIFFERENCES FOUND"
    head = (
        f"{reply.backup_id} verified at level {reply.level}: {verdict} "
        f"({size(reply.read_bytes)} read in {reply.duration_seconds} s)."
    )
    return _lines(head, map(_finding, reply.findings), reply.omitted)


def restore_summary(reply: RestoreReply) -> str:
    """Say what would change or has changed, source by source, and how to go on."""
    if reply.status == "planned":
        head = f"Plan {reply.plan_id} for {reply.backup_id}; nothing has been changed."
    else:
        head = f"{reply.backup_id} {reply.status} in {reply.duration_seconds} s."
    warned = "".join(f"Warning: {each}\n" for each in reply.warnings)
    return _lines(head, map(_target, reply.targets), reply.omitted, warned + reply.next_step)


def restore_question(reply: RestoreReply) -> str:
    """Ask a person whether to carry out a plan."""
    warnings = [f"Warning: {each}" for each in reply.warnings]
    return _lines(
        f"Replace live data with {reply.backup_id}?",
        [*map(_target, reply.targets), *warnings],
        reply.omitted,
        "What is live now is kept and can be put back.",
    )


def undo_question(point: "UndoPoint") -> str:
    """Ask a person whether to take a restore back."""
    return (
        f"Take back the restore {point.restore_id} of {point.time:%Y-%m-%d %H:%M} UTC?\n"
        f"It restored {', '.join(point.sources)} from {point.backup_id}. They become as they were "
        "before it; what was written since is lost."
    )


def undo_summary(reply: UndoReply) -> str:
    """Say what was put back."""
    head = f"{reply.restore_id} undone in {reply.duration_seconds} s; live data is as before it."
    rows = [
        f"- {each.component}/{each.source}: {each.path} ({size(each.size_bytes)})"
        for each in reply.targets
    ]
    return _lines(head, rows, reply.omitted)


def _outcome(outcome: OutcomeReply) -> str:
    if outcome.outcome == "failed":
        return f"- {outcome.component}/{outcome.source} FAILED: {outcome.error}"
    notes = "".join(f" ({note})" for note in outcome.notes)
    return f"- {outcome.component}/{outcome.source} {outcome.outcome}{notes}"


def _finding(finding: FindingReply) -> str:
    return f"- {finding.source}: [{finding.code}] {finding.subject}: {finding.message}"


def _entry(entry: EntryReply) -> str:
    maker = "" if entry.ours else f" (made by another program on {entry.hostname})"
    failed = f", FAILED: {', '.join(entry.failed)}" if entry.failed else ""
    return (
        f"- {entry.backup_id or entry.short_id}{maker} {entry.backup_type} {entry.status}, "
        f"{size(entry.total_bytes)}, {entry.source_count} sources{failed}{_standing(entry)}"
    )


def _standing(entry: EntryReply) -> str:
    """Say what holds a backup, and what proves it."""
    suspect = f", SUSPECT: {', '.join(entry.suspect)}" if entry.suspect else ""
    held = ", ".join(entry.held_by) or "nothing, may be forgotten"
    proven = f", verified {entry.verified:%Y-%m-%d}" if entry.verified else ", not verified"
    proven = f", drilled {entry.drilled:%Y-%m-%d}" if entry.drilled else proven
    return f"{suspect}; held by {held}{proven}" if entry.ours else ""


def _target(target: TargetReply) -> str:
    line = f"- {target.action} {target.component}/{target.source}: {target.path}"
    if target.action in ("restored", "staged"):
        return f"{line} ({size(target.backup_bytes)})"
    line += f" (live: {target.live_state}, {size(target.live_bytes)}; "
    line += f"backup: {size(target.backup_bytes)})"
    if target.holders:
        line += f", open in {', '.join(target.holders)}"
    return f"{line}; {target.lost}" if target.lost else line


def _lines(head: str, rows: Iterable[str], omitted: int = 0, last: str = "") -> str:
    lines = [head, *rows]
    if omitted:
        lines.append(f"({omitted} more left out)")
    return "\n".join([*lines, last] if last else lines)
