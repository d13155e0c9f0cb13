"""What can be asked of the engine, and what it answers: the words all doors share.

Requests and reports are plain facts. A report is built from what happened, never from what was
asked. Sizes are bytes, durations seconds, times aware and UTC.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from mcp_backup.manifest import Failure
from mcp_backup.sources.source import Component, Finding

_OF_SOURCES = re.compile(r" of [^\d].*")  # "daily 1/30 of databases/notes", not "minimum of 3"


class BackupType(StrEnum):
    """Which sources, and how suspiciously they are read."""

    FULL = "full"  # every source, read whole
    INCREMENTAL = "incremental"  # every source; what provably did not change is not read
    DATABASE = "database"
    CONFIG = "config"
    WORKFLOW = "workflow"


class Level(StrEnum):
    """How deep a verification or a check looks."""

    STRUCTURE = "structure"  # everything referred to is there
    DATA = "data"  # and every byte of it is read back, decrypted and hashed
    RESTORE = "restore"  # and rebuilt in scratch and examined like a live source


class CreateRequest(Struct, frozen=True):
    """Back up now. `databases` names database sources; empty means all of the type's sources."""

    backup_type: BackupType = BackupType.FULL
    databases: tuple[str, ...] = ()
    verify: bool = True
    note: str = ""


class SourceOutcome(Struct, frozen=True):
    """What became of one source in a backup."""

    name: str
    component: Component
    kind: str
    outcome: Literal["stored", "unchanged", "failed"]
    files: int
    read_bytes: int
    added_bytes: int
    duration_seconds: float
    failure: Failure | None = None
    notes: tuple[str, ...] = ()


class SourceFinding(Struct, frozen=True):
    """A finding and the source it is about."""

    source: str
    code: str
    subject: str
    message: str

    @classmethod
    def of(cls, source: str, finding: Finding) -> "SourceFinding":
        """Attach a source's name to its finding."""
        return cls(source, finding.code, finding.subject, finding.message)


class BackupReport(Struct, frozen=True):
    """One backup, done.

    `new_bytes` is what no backup had before, `added_bytes` what the repository grew by for it, as
    stored. `suspect` says what sources lost since the backup before. `warnings` are about what is
    not in the backup itself.
    """

    backup_id: str
    snapshot_id: str
    backup_type: BackupType
    status: Literal["completed", "partial"]
    started: datetime
    duration_seconds: float
    read_bytes: int
    added_bytes: int
    verification: Literal["passed", "findings", "skipped"]
    outcomes: tuple[SourceOutcome, ...]
    findings: tuple[SourceFinding, ...]
    note: str = ""
    new_bytes: int = 0
    warnings: tuple[str, ...] = ()
    suspect: tuple[SourceFinding, ...] = ()


class BackupEntry(Struct, frozen=True):
    """One backup in a list. `ours` is False for snapshots that other programs made.

    `held_by` says what keeps it ("latest", "daily 3/30", ...); empty: retention may drop it.
    `suspect` names the sources whose copies look damaged or shrunken. `verified` and `drilled`
    are when it was last read back, or restored for a drill, without findings.
    """

    backup_id: str
    snapshot_id: str
    backup_type: str
    status: str
    time: datetime
    note: str
    sources: tuple[str, ...]
    failed: tuple[str, ...]
    total_bytes: int
    added_bytes: int
    hostname: str
    ours: bool
    databases: tuple[str, ...] = ()  # of `sources`, those that are databases
    held_by: tuple[str, ...] = ()
    suspect: tuple[str, ...] = ()
    verified: datetime | None = None
    drilled: datetime | None = None


def holding(reasons: Sequence[str]) -> list[str]:
    """Return why a backup is held, in short: without the names of sources, each reason once."""
    return list(dict.fromkeys(_OF_SOURCES.sub("", reason) for reason in reasons))


class BackupPage(Struct, frozen=True):
    """One page of backups, newest first. `next_cursor` is "" on the last page.

    `damaged` names the snapshot files that cannot be read, and so are not among the entries.
    """

    entries: tuple[BackupEntry, ...]
    next_cursor: str
    total: int
    damaged: tuple[str, ...] = ()


class VerifyReport(Struct, frozen=True):
    """What a verification found; no findings means that everything agreed."""

    backup_id: str
    snapshot_id: str
    level: Level
    findings: tuple[SourceFinding, ...]
    sources: tuple[str, ...]
    read_bytes: int
    duration_seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class CheckFinding(Struct, frozen=True):
    """One thing wrong in the repository: a stable code, the object's name, the fact."""

    code: str
    subject: str
    message: str


class CheckReport(Struct, frozen=True):
    """What a check of the repository found, and how much it looked at."""

    level: Level
    findings: tuple[CheckFinding, ...]
    snapshots: int
    packs: int
    blobs: int
    read_bytes: int
    duration_seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class PrunedPacks(Struct, frozen=True):
    """Packs that share a fate ("keep", "repack" or "delete") and its reason; bytes as stored."""

    fate: str
    reason: str
    packs: int
    size: int


class PruneReport(Struct, frozen=True):
    """What a prune did or, in a dry run, would do. Sizes are bytes as stored.

    `freed_bytes` is what the repository shrank by, which merging small packs can make negative;
    a dry run estimates it. `unused_bytes` is what stays though nothing needs it.
    """

    dry_run: bool
    snapshots: int
    packs: tuple[PrunedPacks, ...]
    freed_bytes: int
    unused_bytes: int
    duration_seconds: float


class InitReport(Struct, frozen=True):
    """A repository, made (or found: `created` is False). `sources` counts what is configured."""

    location: str
    repository_id: str
    created: bool
    password_file: str
