"""What the verbs that look after a repository answer: forget, export and doctor.

Plain facts, as in `verbs`. Sizes are bytes, durations seconds, times aware and UTC.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from mcp_backup.verbs import PruneReport


class JudgedBackup(Struct, frozen=True):
    """One backup and why it is kept; without `reasons` it may be forgotten."""

    backup_id: str
    snapshot_id: str
    time: datetime
    backup_type: str
    reasons: tuple[str, ...]


class ForgetReport(Struct, frozen=True):
    """What retention keeps and what it dropped or, in a dry run, would drop; newest first.

    `policy` words the settings it went by, `warnings` what a person should know of them. `prune`
    is None where nothing was dropped.
    """

    dry_run: bool
    policy: str
    kept: tuple[JudgedBackup, ...]
    forgotten: tuple[JudgedBackup, ...]
    warnings: tuple[str, ...]
    prune: PruneReport | None
    duration_seconds: float


class ExportReport(Struct, frozen=True):
    """An export, done. `proof` says how it was shown to be exact."""

    backup_id: str
    path: str
    size: int
    proof: str


class Diagnosis(Struct, frozen=True):
    """One thing `doctor` looked at."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    message: str
    hint: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
