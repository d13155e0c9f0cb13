"""The journal of one restore: what was about to happen, written down before it did.

    <state>/restores/<restore_id>/
        journal     JSON objects, one a line, each on the disk before the next step is taken
        staged/     what the backup holds, ready to go live; gone once the restore has ended
        undo/       what was live before

A line is {"event": …, "at": …, facts}. In the order of their coming:

    begun       what will be done: purpose, plan, backup, targets with all it takes to finish
    new         per target: the signature of what goes live
    kept        per target: the undo point is on the disk; the signature of what it holds
    exchanging  every undo point is; from here on a crash is finished, before it undone
    exchanged   per target
    failed      an exchange failed: from here on a crash is rolled back
    put-back    per target
    ended       the outcome; nothing is left to be done
    pruned      the undo point is about to be removed

Only a whole line counts: what a crash left of the last one is cut off before the next is written.
Everything here blocks and is called in worker threads.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from mcp_backup.durable import create_durably, fsync_directory, fsync_file, make_directory_durably
from mcp_backup.errors import RestoreError, UnknownPlan
from mcp_backup.record import asdict
from mcp_backup.sources.source import Component, SourceSpec

JOURNAL = "journal"
STAGED = "staged"
UNDO = "undo"

Purpose = Literal["restore", "undo"]
Outcome = Literal["restored", "rolled-back", "abandoned", "interrupted"]
Signature = Mapping[str, str]  # path within the source ("" for a database) → what lies there
Steps = Callable[[str], None]  # told of each step before it is taken

_RESTORE_ID = re.compile(r"restore_[0-9]{8}_[0-9]{6}_[0-9a-f]{8}")


def nothing(step: str) -> None:
    """Take no notice of a step."""


class Target(Struct, frozen=True):
    """One source to exchange. `key` names its directories: "databases/notes"."""

    spec: SourceSpec
    size: int

    @property
    def key(self) -> str:
        """Where the target's files are, below `staged` and `undo`."""
        return f"{self.spec.component}/{self.spec.name}"


class Begun(Struct, frozen=True):
    """What a restore set out to do. `undoes` is the restore that an undo puts back, or ""."""

    restore_id: str
    purpose: Purpose
    plan_id: str
    backup_id: str
    snapshot_id: str
    started: datetime
    targets: tuple[Target, ...]
    undoes: str = ""


class Record(Struct, frozen=True):
    """What a journal tells so far. Targets are named by their keys; `failed` is one, or ""."""

    directory: Path
    begun: Begun
    new: Mapping[str, Signature] = field(default_factory=dict)
    kept: Mapping[str, Signature] = field(default_factory=dict)
    exchanging: bool = False
    exchanged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # with notes for people
    failed: str = ""
    put_back: frozenset[str] = frozenset()
    outcome: Outcome | None = None
    message: str = ""
    pruned: bool = False

    @property
    def undoable(self) -> bool:
        """Whether there is an undo point that may be put back."""
        return self.exchanging and not self.pruned and self.outcome in ("restored", "interrupted")

    def staged(self, target: Target) -> Path:
        """Return the directory of what goes live."""
        return self.directory / STAGED / target.key

    def undo(self, target: Target) -> Path:
        """Return the directory of the target's undo point."""
        return self.directory / UNDO / target.key


class Journal:
    """One journal, open for writing. Used by one task at a time.

    `step` is told of every step before it is taken, those of the exchange included.
    """

    def __init__(self, directory: Path, now: Callable[[], datetime], step: Steps = nothing) -> None:
        """Go on with the journal in `directory`, which `create` or a crashed process left."""
        self.directory = directory
        self.step = step
        self._now = now

    @classmethod
    def create(
        cls, restores: Path, begun: Begun, now: Callable[[], datetime], step: Steps = nothing
    ) -> "Journal":
        """Make the restore's directory, and in it a journal that says what was begun.

        A crash leaves no directory, an empty one, or one with a whole first line.
        """
        directory = restores / begun.restore_id
        step(f"make {begun.restore_id}")
        make_directory_durably(directory)
        step(f"journal begun {begun.restore_id}")
        create_durably(directory / JOURNAL, _line("begun", now(), _told(begun)))
        return cls(directory, now, step)

    def append(self, event: str, **facts: Any) -> None:
        """Add one line; on return it survives a power cut."""
        line = _line(event, self._now(), facts)
        self.step(f"journal {event} {facts.get('target', '')}".rstrip())
        descriptor = os.open(self.directory / JOURNAL, os.O_RDWR | os.O_NOFOLLOW)
        try:
            whole = _whole(_read_all(descriptor))
            os.ftruncate(descriptor, whole)
            os.pwrite(descriptor, line, whole)
            fsync_file(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> Record:
        """Return what has been written so far."""
        return read(self.directory)


def restore_id(now: datetime, random: Callable[[int], bytes]) -> str:
    """Return a fresh restore id: the time in UTC, and 8 random digits."""
    return f"restore_{now:%Y%m%d_%H%M%S}_{random(4).hex()}"


def directory_of(restores: Path, identity: str) -> Path:
    """Return the directory of a restore that exists.

    Raises:
        UnknownPlan: `identity` is not a restore's id, or there is none of that id.
    """
    if _RESTORE_ID.fullmatch(identity) is None or not (restores / identity / JOURNAL).is_file():
        raise UnknownPlan(
            f"no restore has the id {identity!r:.80}",
            hint="Use the `undo_id` that restore_backup answered, or see `mcp-backup undo --list`.",
        )
    return restores / identity


def directories(restores: Path) -> list[Path]:
    """Return the directories of all restores, by name; foreign names are left out."""
    if not restores.is_dir():
        return []
    return sorted(path for path in restores.iterdir() if _RESTORE_ID.fullmatch(path.name))


_STRANGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


def read(directory: Path) -> Record:
    """Fold a journal into what it tells.

    Raises:
        FileNotFoundError: there is no journal.
        RestoreError: a line is not what this program writes; the restore is left as it is.
    """
    data = (directory / JOURNAL).read_bytes()
    try:
        lines = [json.loads(line) for line in data[: _whole(data)].splitlines()]
        record = Record(directory, _begun(lines[0]))
        for line in lines[1:]:
            record = _folded(record, line)
    except _STRANGE as error:
        raise RestoreError(
            f"the journal of {directory.name} cannot be read: {type(error).__name__}: {error}",
            hint=f"Nothing was changed. What it kept is in {directory / UNDO}.",
        ) from error
    return record


def read_all(restores: Path) -> list[Record]:
    """Return what every readable journal tells, oldest first, also of those of one second."""
    found = list[Record]()
    for directory in directories(restores):
        with suppress(FileNotFoundError, RestoreError):
            found.append(read(directory))
    return sorted(found, key=lambda record: (record.begun.started, record.begun.restore_id))


def fsync_tree(root: Path) -> None:
    """Make everything under `root` durable, and `root`'s own name."""
    for place, _directories, files in os.walk(root, onerror=_raise):
        for name in files:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fsync_file(descriptor)
                finally:
                    os.close(descriptor)
        fsync_directory(Path(place))
    fsync_directory(root.parent)


def _raise(error: OSError) -> None:
    raise error


def _line(event: str, at: datetime, facts: Mapping[str, Any]) -> bytes:
    document = {"event": event, "at": at.isoformat(), **facts}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _read_all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _told(begun: Begun) -> dict[str, Any]:
    facts = asdict(begun)
    facts["started"] = begun.started.isoformat()
    return facts


def _begun(line: Mapping[str, Any]) -> Begun:
    if line["event"] != "begun":
        raise ValueError(f"it begins with {line['event']!r}")
    return Begun(
        restore_id=line["restore_id"],
        purpose=line["purpose"],
        plan_id=line["plan_id"],
        backup_id=line["backup_id"],
        snapshot_id=line["snapshot_id"],
        started=datetime.fromisoformat(line["started"]).astimezone(UTC),
        targets=tuple(Target(_spec(item["spec"]), item["size"]) for item in line["targets"]),
        undoes=line["undoes"],
    )


def _spec(item: Mapping[str, Any]) -> SourceSpec:
    return SourceSpec(
        name=item["name"],
        component=Component(item["component"]),
        kind=item["kind"],
        path=item["path"],
        options=item["options"],
        real=item.get("real", ""),
    )


def _folded(record: Record, line: Mapping[str, Any]) -> Record:
    return replace(record, **_FOLDS[line["event"]](record, line))


_FOLDS: Mapping[str, Callable[[Record, Mapping[str, Any]], dict[str, Any]]] = {
    "new": lambda record, line: {"new": {**record.new, line["target"]: line["signature"]}},
    "kept": lambda record, line: {"kept": {**record.kept, line["target"]: line["signature"]}},
    "exchanging": lambda _record, _line: {"exchanging": True},
    "exchanged": lambda record, line: {
        "exchanged": {**record.exchanged, line["target"]: tuple(line["notes"])}
    },
    "failed": lambda _record, line: {"failed": line["target"], "message": line["message"]},
    "put-back": lambda record, line: {"put_back": record.put_back | {line["target"]}},
    "ended": lambda _record, line: {"outcome": line["outcome"], "message": line["message"]},
    "pruned": lambda _record, _line: {"pruned": True},
}
