"""What the status says: facts, as in `verbs`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct


class SourceStatus(Struct, frozen=True):
    """How much of a source would be lost if it were lost now.

    `last_success` is when its newest copy was begun; `rpo_hours` is how long ago that is, `None`
    if there is none. `worst_rpo_hours` is the longest time between two copies that is on record,
    the one until now among them, and `worst_began` when it began. `failure` is why its last try
    failed, `suspect` what looks wrong with its last copy; "" if nothing. `recovery_seconds` is what
    getting it back takes by its last drill, which was `drilled` then; `None` if unknown. `cut` says
    how its image is cut into chunks, and what another size would save and cost; "" if it has none.
    """

    source: str
    component: str
    last_success: datetime | None
    rpo_hours: float | None
    target_rpo_hours: float
    worst_rpo_hours: float | None
    overdue: bool
    failure: str = ""
    recovery_seconds: float | None = None
    drilled: datetime | None = None
    suspect: str = ""
    worst_began: datetime | None = None
    cut: str = ""


class NextRun(Struct, frozen=True):
    """When a schedule is due next."""

    schedule: str
    backup_type: str
    due: datetime


class Statistics(Struct, frozen=True):
    """The backups on record, counted. `compression` is new bytes to stored bytes, 0 if unknown."""

    successes: int = 0
    partial: int = 0
    failures: int = 0
    interrupted: int = 0
    read_bytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    compression: float = 0.0
    mean_seconds: float = 0.0
    longest_seconds: float = 0.0


class StatusReport(Struct, frozen=True):
    """How the backups are, in one word, and why; then the facts behind it.

    `backups` counts those in the repository and `age_distribution` sorts them. `surplus` counts
    those that retention no longer wants, `None` if there are too many to judge on the way.
    `unprotected` names databases and servers that were found, and that no source covers; `missed`
    the slots of the schedule that passed without a run; `undelivered` the alerts that could not be
    delivered so far. `recovery_seconds` is what getting everything back takes by the last drills,
    `None` while a source was never drilled.
    """

    health: Literal["healthy", "at risk", "failing"]
    reasons: tuple[str, ...]
    target_rpo_hours: float
    sources: tuple[SourceStatus, ...]
    backups: int
    newest: datetime | None
    age_distribution: Mapping[str, int]
    statistics: Statistics
    retention: str
    surplus: int | None
    next_runs: tuple[NextRun, ...]
    missed: tuple[str, ...]
    unprotected: tuple[str, ...]
    target_rto_hours: float = 4
    recovery_seconds: float | None = None
    undelivered: tuple[str, ...] = ()
