"""Walks through the runbook that are on record: which page, how, and how long it took."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field

FILE = "runbook.jsonl"  # in the state directory; `runbook.walking` writes it
_SHOWN = 20
_LONGEST = 8 << 20  # bytes of the file that are read


class WalkOnRecord(Struct, frozen=True):
    """One walk. It is `complete` when it came to the page's end with all as printed.

    `sections` has the seconds that the commands of each section took, by its heading.
    """

    page: str
    mode: str
    started: datetime
    seconds: float
    steps: int
    complete: bool
    sections: Mapping[str, float] = field(default_factory=dict)


def last_walk(walks: Sequence[WalkOnRecord], page: str) -> WalkOnRecord | None:
    """Return the last walk to a page's end, the last live one if any; talk takes another time."""
    for mode in ("live", "drill"):
        for walk in reversed(walks):
            if (walk.page, walk.mode, walk.complete) == (page, mode, True):
                return walk
    return None


def read_walks(state: Path) -> tuple[WalkOnRecord, ...]:
    """Return the last walks, oldest first; lines that are none are left out. Blocks."""
    try:
        with (state / FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LONGEST))
            lines = file.read().splitlines()
    except OSError:
        return ()
    found = (_walk(line) for line in lines)
    return tuple(walk for walk in found if walk is not None)[-_SHOWN:]


def _walk(line: bytes) -> WalkOnRecord | None:
    try:
        fields = json.loads(line)
        sections: dict[str, float] = {}
        for step in fields["steps"]:
            if step["outcome"] != "not run":
                taken = sections.get(step["section"], 0.0) + float(step["seconds"])
                sections[str(step["section"])] = round(taken, 3)
        return WalkOnRecord(
            str(fields["page"]),
            str(fields["mode"]),
            datetime.fromisoformat(fields["started"]),
            float(fields["seconds"]),
            len(fields["steps"]),
            bool(fields["complete"]),
            sections,
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
