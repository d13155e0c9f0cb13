"""The Python API's facts: what is registered, and what is told of a backup."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self, TypedDict

from msgspec import Struct, field

from mcp_backup.sources.source import Component
from mcp_backup.verbs import BackupEntry, BackupReport, holding


class BackupStatus(StrEnum):
    """What a stored backup is. A backup in which everything failed is not stored, but raised."""

    COMPLETED = "completed"
    PARTIAL = "partial"  # some databases failed; the others are in it
    CORRUPTED = "corrupted"  # verification found that a copy is not sound


class RetentionTier(StrEnum):
    """How long a backup is to be kept for."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class DatabaseBackupConfig(Struct, frozen=True):
    """A database to back up. Excluded tables are kept as empty tables."""

    name: str
    db_path: str | Path
    enabled: bool = True
    backup_enabled: bool = True
    verify_after_backup: bool = True
    tables_to_exclude: Sequence[str] = field(default_factory=list)


class BackupMetadata(Struct, frozen=True):
    """One backup.

    `checksum` is the snapshot's id, a SHA-256 over everything in it. `size_bytes` is the size of
    the databases, `added_bytes` what the repository grew by. `files_included` names the sources.

    `held_by` says why retention keeps it ("latest", "daily 3/30", ...), `tiers` which tiers do;
    both are of the moment it was listed, and empty in the answer of `create_backup`. `suspect`
    names databases that look damaged or shrunken against the backup before. `verified_at` and
    `drilled_at` are when it was last read back, or restored in a drill, without findings.
    """

    backup_id: str
    timestamp: datetime
    backup_type: str
    size_bytes: int
    added_bytes: int
    checksum: str
    files_included: list[str]
    databases_backed_up: list[str]
    status: BackupStatus
    location: str
    backup_duration_seconds: float | None = None
    held_by: list[str] = field(default_factory=list)
    tiers: list[RetentionTier] = field(default_factory=list)
    suspect: list[str] = field(default_factory=list)
    verified_at: datetime | None = None
    drilled_at: datetime | None = None

    @classmethod
    def of_report(cls, report: BackupReport, location: Path) -> Self:
        """Tell of a backup that was just made."""
        stored = [outcome for outcome in report.outcomes if outcome.outcome != "failed"]
        damaged = report.verification == "findings"
        return cls(
            backup_id=report.backup_id,
            timestamp=report.started,
            backup_type=report.backup_type,
            size_bytes=report.read_bytes,
            added_bytes=report.added_bytes,
            checksum=report.snapshot_id,
            files_included=[outcome.name for outcome in stored],
            databases_backed_up=[
                outcome.name for outcome in stored if outcome.component == Component.DATABASES
            ],
            status=BackupStatus.CORRUPTED if damaged else BackupStatus(report.status),
            location=str(location),
            backup_duration_seconds=report.duration_seconds,
            suspect=sorted({found.source for found in (*report.findings, *report.suspect)}),
            verified_at=report.started if report.verification == "passed" else None,
        )

    @classmethod
    def of_entry(cls, entry: BackupEntry, location: Path) -> Self:
        """Tell of a backup in a list; one whose manifest cannot be read is corrupted."""
        unreadable = entry.status == "unreadable"
        held_by = holding(entry.held_by)
        return cls(
            backup_id=entry.backup_id,
            timestamp=entry.time,
            backup_type=entry.backup_type,
            size_bytes=entry.total_bytes,
            added_bytes=entry.added_bytes,
            checksum=entry.snapshot_id,
            files_included=list(entry.sources),
            databases_backed_up=list(entry.databases),
            status=BackupStatus.CORRUPTED if unreadable else BackupStatus(entry.status),
            location=str(location),
            held_by=held_by,
            tiers=[tier for tier in RetentionTier if _holds(tier, held_by)],
            suspect=list(entry.suspect),
            verified_at=entry.verified,
            drilled_at=entry.drilled,
        )


def _holds(tier: RetentionTier, held_by: Sequence[str]) -> bool:
    return any(tier in reason.split() for reason in held_by)


class Restored(TypedDict):
    """A restore, done; what fails raises."""

    status: Literal["success"]
    backup_id: str
    restored_components: list[str]
    undo_id: str


class Statistics(TypedDict):
    """How the backups are ("healthy", "at risk", "failing"), and what was counted.

    `failed_backups` stored nothing; `rpo_hours` is how old each database's newest copy is.
    """

    health: str
    reasons: list[str]
    total_backups: int
    successful_backups: int
    partial_backups: int
    failed_backups: int
    total_size_bytes: int
    compression_ratio: float
    average_duration_seconds: float
    rpo_hours: dict[str, float | None]
    last_backup_time: str | None
    age_distribution: dict[str, int]
    retention_policy: dict[str, int]
