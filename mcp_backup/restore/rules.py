"""What the operator decided about restores, and what the surroundings provide."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

from msgspec import Struct

from mcp_backup.restore.journal import Steps, nothing
from mcp_backup.restore.recovery import SETTLE_SECONDS


class Rules(Struct, frozen=True):
    """The rules of all restores under one state directory.

    `step` is told of each step before it is taken; `settle_seconds` is what recovery grants the
    workers of a process that was killed.
    """

    state: Path
    scratch: Path
    now: Callable[[], datetime]
    random: Callable[[int], bytes]
    confirmation: Literal["human", "elicit", "token"] = "human"
    plan_minutes: int = 60
    undo_keep: int = 5
    step: Steps = nothing
    settle_seconds: float = SETTLE_SECONDS
