"""What a plan saw of a live target, and whether that is still so."""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from anyio import to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from mcp_backup.errors import SourceUnreadable
from mcp_backup.restore.signatures import ABSENT, differing, of_files
from mcp_backup.sources import capture
from mcp_backup.sources.source import PIECEWISE, REMOTE, SERVED, SourceSpec

LiveState = Literal["present", "absent", "damaged"]
_SIDE_FILES = ("-wal", "-journal", ".wal")
_MOST_NAMED = 3  # files named in a sentence


class Seen(Struct, frozen=True):
    """A live target at one moment. `approval.py` says which of it binds a plan, and why.

    `identity` is the file's or the root's device and inode, "" when it is absent. `signature` is
    empty for databases. `size` is bytes, `changed_ns` the time of the last write, 0 if unknown.
    `real` is where the path leads, "" for what is not in files.
    """

    kind: str
    path: str
    state: LiveState
    identity: str = ""
    signature: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    changed_ns: int = 0
    real: str = ""

    def differs(self, now: "Seen") -> str:
        """Say in a clause what has changed since, or "" when the plan still holds."""
        if (self.kind, self.path) != (now.kind, now.path):
            return f"the settings now say {now.kind} at {now.path}"
        if self.real != now.real:
            return f"its path led to {self.real} and leads to {now.real}"
        if self.state != now.state:
            return f"it was {self.state} and is {now.state}"
        if self.identity != now.identity:
            return "it is another under the same name"
        return named("changed", differing(self.signature, now.signature))


def named(what: str, paths: Sequence[str]) -> str:
    """Word a list of paths: the first few by name, the rest by number; "" for none."""
    if not paths:
        return ""
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return f"{', '.join(paths[:_MOST_NAMED])}{more} {what}"


async def look(spec: SourceSpec, paths: Sequence[str]) -> Seen:
    """Look at a live target without changing it; `paths` are those a restore would write."""
    seen = await _look(spec, paths)
    if spec.kind in REMOTE:
        return seen
    return replace(seen, real=await to_thread.run_sync(os.path.realpath, spec.path))


async def _look(spec: SourceSpec, paths: Sequence[str]) -> Seen:
    if spec.kind == "files":
        return await to_thread.run_sync(_look_at_files, spec, paths)
    if spec.kind in PIECEWISE:
        marks = await capture.signature(spec, paths)
        state: LiveState = "present" if set(marks.values()) - {ABSENT} else "absent"
        return Seen(spec.kind, spec.path, state, spec.path, marks)
    if spec.kind in SERVED:
        mark, size = await capture.look(spec)
        if mark == ABSENT:
            return Seen(spec.kind, spec.path, "absent")
        return Seen(spec.kind, spec.path, "present", mark, {}, size)
    seen = await to_thread.run_sync(_look_at_database, spec)
    if seen.state == "present" and not await capture.is_sound(spec):
        return Seen(spec.kind, spec.path, "damaged", seen.identity, {}, seen.size, seen.changed_ns)
    return seen


def _look_at_database(spec: SourceSpec) -> Seen:
    """Look from outside only.

    Opening and closing the file would drop the locks of whoever in this process has it open.
    """
    found = _status(spec)
    if found is None:
        return Seen(spec.kind, spec.path, "absent")
    if spec.kind == "duckdb" and stat.S_ISDIR(found.st_mode):
        return _look_at_tree(spec, found)
    size, changed = found.st_size, found.st_mtime_ns
    for suffix in _SIDE_FILES:
        try:
            side = os.stat(os.path.realpath(spec.path) + suffix)
        except OSError:
            continue
        size, changed = size + side.st_size, max(changed, side.st_mtime_ns)
    state: LiveState = "present" if stat.S_ISREG(found.st_mode) else "damaged"
    return Seen(spec.kind, spec.path, state, _identity(found), {}, size, changed)


def _look_at_tree(spec: SourceSpec, root: os.stat_result) -> Seen:
    """Look at a directory of databases, from outside as well."""
    size = changed = 0
    for place, _directories, files in os.walk(spec.path):
        for name in files:
            with suppress(OSError):  # side files come and go
                found = os.lstat(os.path.join(place, name))
                size, changed = size + found.st_size, max(changed, found.st_mtime_ns)
    state: LiveState = "present" if size else "absent"
    return Seen(spec.kind, spec.path, state, _identity(root), {}, size, changed)


def _look_at_files(spec: SourceSpec, paths: Sequence[str]) -> Seen:
    root = _status(spec)
    if root is None:
        return Seen(spec.kind, spec.path, "absent")
    if not stat.S_ISDIR(root.st_mode):
        return Seen(spec.kind, spec.path, "damaged", _identity(root), {}, root.st_size)
    signature = of_files(Path(spec.path), paths)
    size = changed = 0
    for path, what in signature.items():
        if what.startswith("file:"):
            with suppress(OSError):  # it was there a moment ago
                found = os.lstat(os.path.join(spec.path, path))
                size, changed = size + found.st_size, max(changed, found.st_mtime_ns)
    state: LiveState = "present" if set(signature.values()) - {ABSENT} else "absent"
    return Seen(spec.kind, spec.path, state, _identity(root), signature, size, changed)


def _status(spec: SourceSpec) -> os.stat_result | None:
    """Return the status of what the source's path leads to; None when there is nothing."""
    try:
        return os.stat(spec.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceUnreadable(
            f"source {spec.name!r}: {spec.path}: {(error.strerror or str(error)).lower()}",
            hint="Let the user that runs mcp-backup see it. Nothing was touched.",
        ) from error


def _identity(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}"
