"""What can be asked of the engine about restores, and what it answers.

Plain facts, as in `verbs`. Sizes are bytes, durations seconds, times aware and UTC.
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from mcp_backup.sources.source import Component, Holder


class RestoreRequest(Struct, frozen=True):
    """Plan a restore. Empty `components` and `databases` mean everything in the backup."""

    backup_id: str = "latest"
    components: tuple[Component, ...] = ()
    databases: tuple[str, ...] = ()
    target: Literal["original", "scratch"] = "original"


class PlannedTarget(Struct, frozen=True):
    """What a restore would do to one source.

    `lost` says in a sentence what newer data the live side holds that the backup does not, or "".
    """

    source: str
    component: Component
    kind: str
    original: str
    live_state: Literal["present", "absent", "damaged"]
    live_bytes: int
    backup_bytes: int
    action: Literal["replace", "create", "stage"]
    holders: tuple[Holder, ...] = ()
    lost: str = ""


class RestorePlan(Struct, frozen=True):
    """A restore that could be done: what it saw, what it would do, and until when it holds."""

    plan_id: str
    backup_id: str
    snapshot_id: str
    created: datetime
    expires: datetime
    target: Literal["original", "scratch"]
    targets: tuple[PlannedTarget, ...]
    scratch: str
    needed_bytes: int
    free_bytes: int
    approval: Literal["none", "human", "elicit", "token"]
    approved: bool
    warnings: tuple[str, ...] = ()
    undoes: str = ""  # the restore whose undo this plans; "" for a restore


class RestoredTarget(Struct, frozen=True):
    """One source, restored: where it is now, how many bytes, and what a person should know."""

    source: str
    component: Component
    path: str
    size: int
    notes: tuple[str, ...] = ()


class RestoreReport(Struct, frozen=True):
    """A restore, done. `undo_id` is "" when nothing live was touched."""

    restore_id: str
    plan_id: str
    backup_id: str
    status: Literal["restored", "staged"]
    targets: tuple[RestoredTarget, ...]
    undo_id: str
    duration_seconds: float


class UndoReport(Struct, frozen=True):
    """An undo, done: live data is as it was before the restore."""

    restore_id: str
    targets: tuple[RestoredTarget, ...]
    duration_seconds: float


class UndoPoint(Struct, frozen=True):
    """A restore that can be undone."""

    restore_id: str
    backup_id: str
    time: datetime
    sources: tuple[str, ...]
    size: int
