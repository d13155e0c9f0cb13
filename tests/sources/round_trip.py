"""Captured, staged, put back over something else, captured again: what every kind must stand.

The evidence of both captures has to be equal. The gate tries a few examples of each kind;
`--hypothesis-profile=thorough` tries twenty times as many, other ones in each run.
"""

import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from mcp_backup.sources.kinds import kind
from mcp_backup.sources.source import SourceSpec
from tests.sources.collecting import Collected, collect


def examples(few: int) -> settings:
    """So many examples in the gate, and more of them where the profile says so."""
    return settings(
        max_examples=max(1, few * settings.default.max_examples // 100),  # type: ignore[union-attr]
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),  # a database takes too long to be shrunk
    )


def captured(spec: SourceSpec, place: Path) -> Collected:
    scratch = place / "scratch"
    scratch.mkdir(exist_ok=True)
    return collect(lambda sink: kind(spec.kind).capture(spec, sink, scratch), slots=3)


def staged_copy(collected: Collected, place: Path) -> Path:
    """Write what was captured into a directory, as the stager does."""
    staged = place / "staged"
    staged.mkdir(mode=0o700)
    for entry in collected.entries:
        path = staged / entry.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if entry.type == "dir":
            path.mkdir(mode=0o700, exist_ok=True)
        elif entry.type == "symlink":
            path.symlink_to(entry.link_target)
        else:
            path.write_bytes(collected.content[entry.path])
    for entry in reversed(collected.entries):
        if entry.type != "symlink":
            (staged / entry.path).chmod(entry.mode)
            os.utime(staged / entry.path, ns=(entry.mtime_ns, entry.mtime_ns))
    return staged


def put_live(spec: SourceSpec, collected: Collected, place: Path) -> None:
    """Examine what was captured, and exchange it."""
    staged = staged_copy(collected, place)
    assert kind(spec.kind).examine(staged, collected.evidence) == []
    kind(spec.kind).place(spec, staged)
