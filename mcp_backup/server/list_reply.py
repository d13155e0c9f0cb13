"""The answer of `list_backups`."""

from typing import Self

from pydantic import AwareDatetime

from mcp_backup.server.replies import Reply
from mcp_backup.server.wording import MESSAGE_LIMIT, clipped
from mcp_backup.verbs import BackupEntry, BackupPage, holding

_SHORT_ID = 8  # hex digits of a snapshot id, restic's short form


class EntryReply(Reply):
    """One backup in a list. `sources` may be cut; `source_count` is not.

    `held_by`: why retention keeps it; empty, it may be dropped. `verified`, `drilled`: when it was
    last read back, or restored in a drill, without findings.
    """

    backup_id: str
    short_id: str
    backup_type: str
    status: str
    time: AwareDatetime
    sources: list[str]
    source_count: int
    failed: list[str]
    total_bytes: int
    added_bytes: int
    note: str
    hostname: str
    ours: bool
    held_by: list[str]
    suspect: list[str]
    verified: AwareDatetime | None
    drilled: AwareDatetime | None

    @classmethod
    def of(cls, entry: BackupEntry, rows: int | None) -> Self:
        """Tell one row."""
        return cls(
            backup_id=entry.backup_id,
            short_id=entry.snapshot_id[:_SHORT_ID],
            backup_type=entry.backup_type,
            status=entry.status,
            time=entry.time,
            sources=list(entry.sources[:rows]),
            source_count=len(entry.sources),
            failed=list(entry.failed[:rows]),
            total_bytes=entry.total_bytes,
            added_bytes=entry.added_bytes,
            note=clipped(entry.note, MESSAGE_LIMIT if rows is None else 50),
            hostname=entry.hostname,
            ours=entry.ours,
            held_by=list(entry.held_by) if rows is None else _some(holding(entry.held_by), rows),
            suspect=list(entry.suspect[:rows]),
            verified=entry.verified,
            drilled=entry.drilled,
        )


def _some(reasons: list[str], rows: int) -> list[str]:
    more = len(reasons) - rows
    return [*reasons[:rows], f"{more} more"] if more > 0 else reasons


class BackupsReply(Reply):
    """One page, newest first; `next_cursor` is "" on the last. `damaged`: unreadable snapshots."""

    backups: list[EntryReply]
    next_cursor: str
    total: int
    damaged: list[str]

    @classmethod
    def of(cls, page: BackupPage, rows: int | None = None) -> Self:
        """Tell a page; `rows` cuts the names within each entry, never the entries."""
        return cls(
            backups=[EntryReply.of(entry, rows) for entry in page.entries],
            next_cursor=page.next_cursor,
            total=page.total,
            damaged=[name[: len("snapshots/") + 8] for name in page.damaged[:rows]],
        )
