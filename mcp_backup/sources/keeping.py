"""Keeping what a placement will change, and putting it back byte for byte.

    <directory>/files/0, 1, …   contents, by number: names and modes may be ones this disk dislikes
    <directory>/kept.json       what each is; written last, so without it nothing was kept

    {"version": 1, "created_root": false, "created": [path, …],
     "entries": [{path, type, mode, uid, gid, mtime_ns, target, file, size, digest}, …]}

`created` are the paths that did not exist, `entries` what did, parents first. A directory that
gives way to a file is kept with everything in it. Putting back may be repeated.
"""

import json
import os
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from mcp_backup.durable import fsync_directory, fsync_file, make_directory_durably, write_durably
from mcp_backup.errors import IntegrityError, RestoreError
from mcp_backup.record import asdict
from mcp_backup.sources import beneath, digest, replace
from mcp_backup.sources.placement import Step, live_root, worded
from mcp_backup.sources.replace import Attributes

KEPT = "kept.json"
_FILES = "files"
_VERSION = 1


class _Entry(Struct, frozen=True):
    """One thing that was live. `file` numbers its content, -1 where it has none."""

    path: str
    type: Literal["file", "dir", "symlink"]
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: str = ""
    file: int = -1
    size: int = 0
    digest: str = ""

    @property
    def attributes(self) -> Attributes:
        return Attributes(self.mode, self.uid, self.gid, self.mtime_ns)


class _Kept(Struct):
    created_root: bool = False
    created: list[str] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)


def keep(steps: Sequence[Step], root: Path, directory: Path) -> int:
    """Copy what the steps would change under `root` into `directory`; on return it is durable.

    A copy that was begun there before is replaced. Returns the bytes of the contents kept.

    Raises:
        RestoreError: something cannot be copied, so it could not be put back. Nothing live was
            touched.
    """
    kept = _Kept(created_root=not os.path.lexists(root))
    make_directory_durably(directory / _FILES)
    if not kept.created_root:
        with live_root(root) as live:
            for step in steps:
                if step.was == "absent":
                    kept.created += [step.path] if step.action != "set-dir" else []
                else:
                    with worded(root, step.path):
                        _keep_step(step, live, directory, kept)
    else:
        kept.created += [step.path for step in steps if step.action != "set-dir"]
    fsync_directory(directory / _FILES)
    document = {"version": _VERSION, **asdict(kept)}
    write_durably(directory / KEPT, json.dumps(document).encode())
    return sum(entry.size for entry in kept.entries)


def put_back(root: Path, directory: Path) -> list[str]:
    """Make live again what `keep` copied to `directory`, and remove what was not there before.

    Every kept content is proven before anything live is touched. Returns notes for people:
    directories that stay because something else has been put into them since.

    Raises:
        IntegrityError: the undo point is damaged; nothing live was touched.
        RestoreError: the system refuses; call again, what is done is not done twice.
    """
    kept = _read(directory)
    for entry in kept.entries:
        if entry.type == "file" and _digest_of(directory, entry) != entry.digest:
            raise _damaged(directory, f"the kept content of {entry.path} has changed")
    notes: list[str] = []
    if os.path.lexists(root):
        with live_root(root) as live:
            for path in reversed(kept.created):
                with worded(root, path):
                    notes += _remove(path, live)
    if kept.created_root:
        return notes + _remove_root(root)
    with live_root(root) as live:
        for entry in kept.entries:
            with worded(root, entry.path):
                _put(entry, live, directory)
        for entry in reversed(kept.entries):
            if entry.type == "dir":
                with worded(root, entry.path):
                    _finish_directory(entry, live)
    return notes


def _keep_step(step: Step, live: int, directory: Path, kept: _Kept) -> None:
    """Keep what is at one step's path; a directory with what is in it only if it gives way."""
    if step.action == "set-dir" and step.was != "dir":
        return  # a directory that takes something's place; its first step kept that
    waiting = [beneath.split(step.path)]
    while waiting:
        parts = waiting.pop()
        with beneath.directory(live, parts[:-1]) as parent:
            entry = _entry("/".join(parts), parent, parts[-1])
            if entry.type == "file":
                entry = _copied(entry, parent, parts[-1], directory, len(kept.entries))
            elif entry.type == "dir" and step.action != "set-dir":
                with beneath.directory(parent, parts[-1:]) as inner:
                    waiting += [(*parts, name) for name in sorted(os.listdir(inner))]
        kept.entries.append(entry)


def _entry(path: str, parent: int, name: str) -> _Entry:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    attributes = asdict(Attributes.of(status))
    if stat.S_ISREG(status.st_mode):
        return _Entry(path, "file", **attributes)
    if stat.S_ISDIR(status.st_mode):
        return _Entry(path, "dir", **attributes)
    if stat.S_ISLNK(status.st_mode):
        return _Entry(path, "symlink", **attributes, target=os.readlink(name, dir_fd=parent))
    raise RestoreError(
        f"{path} is a socket, a pipe or a device, in a directory that is to become a file",
        hint="Move it away and plan the restore again. Nothing was touched.",
    )


def _copied(entry: _Entry, parent: int, name: str, directory: Path, number: int) -> _Entry:
    path = directory / _FILES / str(number)
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with FileIO(beneath.open_file(parent, name)) as live, FileIO(os.open(path, flags, 0o600)) as to:
        size = replace.copy(live.fileno(), to.fileno())
        fsync_file(to.fileno())
        to.seek(0)
        whole = digest.of_file(to)
    attributes = asdict(entry.attributes)
    return _Entry(entry.path, "file", **attributes, file=number, size=size, digest=whole)


def _put(entry: _Entry, live: int, directory: Path) -> None:
    parts = beneath.split(entry.path)
    with beneath.directory(live, parts[:-1]) as parent:
        if entry.type == "dir":
            replace.put_directory(parent, parts[-1])
        elif entry.type == "symlink":
            replace.put_link(parent, parts[-1], entry.target, entry.attributes)
        else:
            with FileIO(directory / _FILES / str(entry.file)) as content:
                replace.put_file(parent, parts[-1], content.fileno(), entry.attributes)


def _finish_directory(entry: _Entry, live: int) -> None:
    with beneath.directory(live, beneath.split(entry.path)) as descriptor:
        replace.set_attributes(descriptor, entry.attributes)
        os.fsync(descriptor)


def _remove(path: str, live: int) -> list[str]:
    """Remove what a placement created; returns a note when it stays, being in use by now."""
    parts = beneath.split(path)
    try:
        with beneath.directory(live, parts[:-1]) as parent:
            status = beneath.status(parent, parts[-1])
            if status is None or not stat.S_ISDIR(status.st_mode):
                replace.remove(parent, parts[-1])
                return []
            replace.recover(parent, parts[-1])
            if _is_empty(parent, parts[-1]):
                os.rmdir(parts[-1], dir_fd=parent)
                os.fsync(parent)
                return []
    except OSError as error:
        if error.errno not in beneath.GONE:
            raise
        return []  # with a directory above it
    return [f"{path}: stays, since it holds files that the restore did not put there"]


def _is_empty(parent: int, name: str) -> bool:
    with beneath.directory(parent, (name,)) as descriptor:
        return not os.listdir(descriptor)


def _remove_root(root: Path) -> list[str]:
    if not os.path.lexists(root):
        return []
    if any(root.iterdir()):
        return [f"{root}: stays, since it holds files that the restore did not put there"]
    root.rmdir()
    return []


def _digest_of(directory: Path, entry: _Entry) -> str:
    try:
        return digest.of_path(directory / _FILES / str(entry.file))
    except OSError as error:
        raise _damaged(directory, f"the kept content of {entry.path} is gone") from error


_STRANGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _read(directory: Path) -> _Kept:
    try:
        document: dict[str, Any] = json.loads((directory / KEPT).read_bytes())
        if document.pop("version") != _VERSION:
            raise _damaged(directory, "it was written by another version")
        entries = [_Entry(**item) for item in document.pop("entries")]
        return _Kept(entries=entries, **document)
    except (OSError, *_STRANGE) as error:
        raise _damaged(directory, f"{KEPT}: {error}") from error


def _damaged(directory: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"the undo point {directory} cannot be used: {why}",
        hint="Nothing live was touched. Restore from a backup instead.",
    )
