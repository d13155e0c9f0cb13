"""Placing files: a staged tree goes into a live root, one name at a time.

    confined      every component of every path is opened without following links, on both sides:
                  nothing outside the root is written, whatever either tree holds
    atomic        each file is old or new; a crash leaves a prefix of the steps done
    repeatable    a step done twice is a step done once; a step that is done anew also clears away
                  what a crash left of it
    modest        what the staged tree does not name is left alone, and so is what already agrees
                  in content, permissions and owner

A live file in the way of a directory, or the other way round, gives way (`replace`). Anything
else in the way, a socket or a device, stops the placement before it begins.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from mcp_backup.durable import make_directory_durably
from mcp_backup.errors import RestoreError, StagingRejected
from mcp_backup.sources import beneath, replace
from mcp_backup.sources.confined import refuse_other_place
from mcp_backup.sources.replace import Attributes

Action = Literal["make-dir", "put-file", "put-link", "set-dir"]
Was = Literal["absent", "file", "dir", "symlink"]

_PERMISSIONS = 0o777  # set-id bits of what is live stay out of it: staging does not bring them back
_PIECE = 1 << 20
_EFFECTIVE = os.access in os.supports_effective_ids


class Step(Struct, frozen=True):
    """One name to be changed. `was` is what is live there before the first step."""

    action: Action
    path: str
    was: Was


def steps(staged: Path, root: Path) -> list[Step]:
    """Say what must be done so that the live `root` has everything in `staged`, and in what order.

    Directories come before what is in them, and again at the end, innermost first, to be given
    their modes. Nothing is touched.

    Raises:
        StagingRejected: the staged tree holds what no backup holds.
        RestoreError: something live is in the way, or may not be read or written.
    """
    planner = _Planner()
    with opened(staged) as source, _opened_if_there(root) as live:
        waiting: list[tuple[tuple[str, ...], bool]] = [((), live is not None)]
        while waiting:
            parts, exists = waiting.pop()
            with _pair(source, live if exists else None, parts) as (from_, to):
                waiting += reversed(planner.directory(parts, from_, to))
    return [*planner.steps, *reversed(planner.last)]


def do(step: Step, staged: Path, root: Path) -> str:
    """Take one step; on return it is durable. Returns a note for people, or "".

    Raises:
        StagingRejected: the step's path leads out of the root.
        RestoreError: the system refuses; what is live there is old or new.
    """
    try:
        parts = beneath.split(step.path)
    except ValueError as error:
        raise StagingRejected(f"{error}", hint="Nothing outside the root was touched.") from error
    with worded(root, step.path):
        make_directory_durably(root)
        with (
            opened(staged) as source,
            live_root(root) as live,
            beneath.directory(source, parts[:-1]) as from_,
            beneath.directory(live, parts[:-1]) as to,
        ):
            owned = _ACTIONS[step.action](from_, to, parts[-1])
    return "" if owned else f"{step.path}: its owner could not be set, so it is ours"


def sweep(staged: Path, root: Path) -> None:
    """Clear away what a killed placement of `staged` left under `root`, and nothing else.

    Raises:
        RestoreError: the system refuses.
    """
    with opened(staged) as source, _opened_if_there(root) as live:
        waiting: list[tuple[str, ...]] = [()] if live is not None else []
        while waiting and live is not None:
            parts = waiting.pop()
            with (
                worded(root, "/".join(parts)),
                beneath.directory(source, parts) as from_,
                beneath.directory(live, parts) as to,
            ):
                waiting += [(*parts, name) for name in _swept(from_, to)]


def _swept(source: int, live: int) -> list[str]:
    """Recover the names of one directory; return those that are directories on both sides."""
    names = os.listdir(source)
    if any(beneath.TEMPORARY.fullmatch(name) for name in os.listdir(live)):
        for name in names:
            replace.recover(live, name)
    return [name for name in names if _is_directory(source, name) and _is_directory(live, name)]


def _is_directory(parent: int, name: str) -> bool:
    status = beneath.status(parent, name)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _make_directory(source: int, live: int, name: str) -> bool:
    replace.put_directory(live, name)
    return True


def _put_file(source: int, live: int, name: str) -> bool:
    content = beneath.open_file(source, name)
    try:
        return replace.put_file(live, name, content, Attributes.of(os.fstat(content)))
    finally:
        os.close(content)


def _put_link(source: int, live: int, name: str) -> bool:
    target = os.readlink(name, dir_fd=source)
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    return replace.put_link(live, name, target, Attributes.of(status))


def _set_directory(source: int, live: int, name: str) -> bool:
    """Give a directory its mode; the set-id and sticky bits that it has live, it keeps."""
    wanted = os.stat(name, dir_fd=source, follow_symlinks=False)
    with beneath.directory(live, (name,)) as descriptor:
        bits = os.fstat(descriptor).st_mode & ~_PERMISSIONS & 0o7777
        mode = wanted.st_mode & _PERMISSIONS | bits
        attributes = Attributes(mode, wanted.st_uid, wanted.st_gid, wanted.st_mtime_ns)
        owned = replace.set_attributes(descriptor, attributes)
        os.fsync(descriptor)
    return owned


_ACTIONS = {
    "make-dir": _make_directory,
    "put-file": _put_file,
    "put-link": _put_link,
    "set-dir": _set_directory,
}


class _Planner:
    """Collects the steps. `last` are those that come after all others, in reverse."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.last: list[Step] = []

    def directory(
        self, parts: tuple[str, ...], source: int, live: int | None
    ) -> list[tuple[tuple[str, ...], bool]]:
        """Plan one directory; return those in it, each with whether it exists live."""
        inner: list[tuple[tuple[str, ...], bool]] = []
        before = len(self.steps)
        for name in sorted(os.listdir(source), key=os.fsencode):
            path = "/".join((*parts, name))
            if beneath.TEMPORARY.fullmatch(name):
                raise _foreign(path, "has a name that is kept for our own temporary files")
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            current = beneath.status(live, name) if live is not None else None
            was = _was(path, current)
            if stat.S_ISDIR(status.st_mode):
                self._directory(path, status, current, was)
                inner.append(((*parts, name), was == "dir"))
            elif stat.S_ISLNK(status.st_mode):
                if was != "symlink" or live is None or not _same_link(source, live, name):
                    self.steps.append(Step("put-link", path, was))
            elif stat.S_ISREG(status.st_mode):
                if was != "file" or live is None or not _same_file(path, source, live, name):
                    self.steps.append(Step("put-file", path, was))
            else:
                raise _foreign(path, "is neither file, directory nor link")
        if live is not None and len(self.steps) > before:
            _writable("/".join(parts), live)
        return inner

    def _directory(
        self, path: str, status: os.stat_result, current: os.stat_result | None, was: Was
    ) -> None:
        if was != "dir":
            self.steps.append(Step("make-dir", path, was))
            self.last.append(Step("set-dir", path, was))
        elif current is not None and not _agree(status, current):
            self.last.append(Step("set-dir", path, was))


def _was(path: str, current: os.stat_result | None) -> Was:
    if current is None:
        return "absent"
    if stat.S_ISREG(current.st_mode):
        return "file"
    if stat.S_ISDIR(current.st_mode):
        return "dir"
    if stat.S_ISLNK(current.st_mode):
        return "symlink"
    raise RestoreError(
        f"{path} is a socket, a pipe or a device now, which could not be put back",
        hint="Move it away and plan the restore again. Nothing was touched.",
    )


def _agree(one: os.stat_result, other: os.stat_result) -> bool:
    """Compare permissions, and owners where we could change them."""
    owners = (one.st_uid, one.st_gid) == (other.st_uid, other.st_gid) or os.geteuid() != 0
    return owners and (one.st_mode ^ other.st_mode) & _PERMISSIONS == 0


def _same_link(source: int, live: int, name: str) -> bool:
    return os.readlink(name, dir_fd=source) == os.readlink(name, dir_fd=live)


def _same_file(path: str, source: int, live: int, name: str) -> bool:
    """Compare two files; the live one must be readable in any case, to be kept."""
    with worded(Path(), path):
        current = beneath.open_file(live, name)
    try:
        wanted = beneath.open_file(source, name)
        try:
            one, other = os.fstat(wanted), os.fstat(current)
            return _agree(one, other) and one.st_size == other.st_size and _equal(wanted, current)
        finally:
            os.close(wanted)
    finally:
        os.close(current)


def _equal(one: int, other: int) -> bool:
    while True:
        left, right = os.read(one, _PIECE), os.read(other, _PIECE)
        if left != right:
            return False
        if not left:
            return True


def _writable(path: str, live: int) -> None:
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=live, effective_ids=_EFFECTIVE):
        raise RestoreError(
            f"the live directory {path or '.'} may not be written",
            hint="Make it writable for the user that runs mcp-backup. Nothing was touched.",
        )


def _foreign(path: str, why: str) -> StagingRejected:
    return StagingRejected(
        f"staged {path!r:.200} {why}",
        hint="The repository holds something mcp-backup did not write. Nothing live was touched.",
    )


@contextmanager
def worded(root: Path, path: str) -> Iterator[None]:
    """Say in our words what the system refuses at `path` under `root`."""
    try:
        yield
    except OSError as error:
        where = os.path.join(root, path)
        if error.errno in beneath.GONE:
            reason = "it, or a directory on the way, was moved or became a link meanwhile"
        else:
            reason = (error.strerror or str(error)).lower()
        raise RestoreError(
            f"{where}: {reason}",
            hint="Put that right and try again. Nothing outside the root was touched, and every "
            "file is either as it was or as it is in the backup.",
        ) from error


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """Hold a directory open. It may itself be reached by links: the operator named it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(
            f"{directory}: {(error.strerror or str(error)).lower()}",
            hint="It must be a directory that mcp-backup may read. Nothing was touched.",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def live_root(root: Path) -> Iterator[int]:
    """Hold a live root open, given by its real path.

    Raises:
        RestoreError: a link was put in its place, or on the way to it.
    """
    with opened(root) as descriptor:
        refuse_other_place(descriptor, root)
        yield descriptor


@contextmanager
def _opened_if_there(root: Path) -> Iterator[int | None]:
    if not os.path.lexists(root):
        yield None
        return
    with live_root(root) as descriptor:
        yield descriptor


@contextmanager
def _pair(
    source: int, live: int | None, parts: tuple[str, ...]
) -> Iterator[tuple[int, int | None]]:
    """Hold the same directory open on both sides, or on one when the other has none."""
    with beneath.directory(source, parts) as from_:
        if live is None:
            yield from_, None
            return
        with beneath.directory(live, parts) as to:
            yield from_, to
