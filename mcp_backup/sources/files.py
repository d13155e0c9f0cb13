"""Sets of files under a root: captured with modes, owners, times and links, told apart exactly.

    honest      what matches and cannot be read fails the source; what is passed over is said
    confined    nothing outside the root is read, whatever links lead there (`beneath`)
    steady      a file is read when nobody is writing it, or it is said that it was (`steady`)
    exact       names are bytes; a link is a link; two names of one inode become two files

Not captured: extended attributes, access lists, and that two names are one inode. The root's own
mode and owner are not captured either: a root that is missing is made private.
"""

import grp
import hashlib
import json
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mcp_backup.errors import SourceMissing, SourceUnreadable
from mcp_backup.sources import beneath, comparison, keeping, placement, steady
from mcp_backup.sources.confined import real_path
from mcp_backup.sources.globs import Globs
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Entry, Evidence, FileEvidence, Finding, Holder, SourceSpec
from mcp_backup.sources.walk import Found, Walked, walk

_SETTLED_NS = 2_000_000_000  # timestamps are up to 4 ms coarse on older kernels, worse on networks
_MOST_NOTES = 100  # a person reads them


def capture(spec: SourceSpec, sink: Sink, scratch: Path) -> Evidence:
    """Read every file, directory and link that the source's patterns mean, parents first.

    Waits up to six seconds for files that are being written. `scratch` is not used.

    Raises:
        SourceMissing: the root does not exist.
        SourceUnreadable: the root is no directory, or something in it that matches cannot be read.
        SettingsInvalid: a pattern makes no sense.
    """
    return captured_with(spec, sink, steady.Patience())


def captured_with(spec: SourceSpec, sink: Sink, patience: steady.Patience) -> Evidence:
    """Capture with a given patience; what `capture` does."""
    with _opened(spec) as root:
        now = time.time_ns()
        walked = _walked(spec, root)
        reader = _Reader(spec, root, sink, patience)
        reader.read(walked)
    for note in _shortened([*_passed_over(spec, walked), *reader.notes]):
        sink.note(note)
    return Evidence(
        engine="files",
        files=tuple(reader.files),
        facts={**reader.counts, "entries": reader.entries},
        notes=tuple(sink.notes),
        fingerprint=_fingerprint(spec, walked, now),
    )


def fingerprint(spec: SourceSpec) -> str:
    """Identify what a capture would read now; equal to the last capture's only if nothing changed.

    "" when that cannot be known: something changed in the last two seconds, or cannot be seen.
    """
    try:
        with _opened(spec) as root:
            now = time.time_ns()
            return _fingerprint(spec, _walked(spec, root), now)
    except (SourceMissing, SourceUnreadable):
        return ""


def examine(directory: Path, evidence: Evidence | None) -> list[Finding]:
    """Compare the staged tree in `directory` with what was seen at its capture."""
    return comparison.differences(directory, evidence)


def holders(spec: SourceSpec) -> list[Holder]:
    """Return nobody: files are exchanged by rename, and whoever has one open keeps the old one."""
    return []


def keep(spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
    """Save into `directory` exactly what placing `staged` would change, and what it would create.

    Raises:
        RestoreError: something live is in the way, or cannot be read or written.
        StagingRejected: the staged tree holds what no backup holds.
    """
    root = Path(real_path(spec))
    existed = os.path.lexists(root)
    if existed:
        placement.sweep(staged, root)
    size = keeping.keep(placement.steps(staged, root), root, directory)
    return KeptCopy("present" if existed else "absent", size)


def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Put the staged tree live, file by file; return notes for people.

    A crash leaves each file old or new; placing again goes on from there and clears up.

    Raises:
        RestoreError: the system refuses; `put_back` undoes what was done.
        StagingRejected: the staged tree holds what no backup holds.
    """
    root = Path(real_path(spec))
    placement.sweep(staged, root)
    steps = placement.steps(staged, root)
    notes = [note for step in steps if (note := placement.do(step, staged, root))]
    return _shortened(notes) + _left_alone(spec, staged)


def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Make live again what `keep` saved in `directory`, byte for byte; return notes for people.

    Raises:
        IntegrityError: the undo point is damaged; nothing live was touched.
        RestoreError: the system refuses; call again.
    """
    return keeping.put_back(Path(real_path(spec)), directory)


def _left_alone(spec: SourceSpec, staged: Path) -> list[str]:
    """Say which live files the patterns mean and the staged tree does not hold."""
    with _opened(spec) as root:
        found = _walked(spec, root).found
    extra = [
        item.path
        for item in found
        if item.type != "dir" and not os.path.lexists(os.path.join(staged, item.path))
    ]
    if not extra:
        return []
    named = ", ".join(extra[:5]) + (", ..." if len(extra) > 5 else "")
    return [f"left alone, being newer than the backup or made elsewhere: {named} ({len(extra)})"]


class _Reader:
    """One capture's reading: entries and bytes to the sink, evidence and notes kept."""

    def __init__(self, spec: SourceSpec, root: int, sink: Sink, patience: steady.Patience) -> None:
        self.files: list[FileEvidence] = []
        self.entries: dict[str, list[str | int]] = {}
        self.counts = {"files": 0, "dirs": 0, "symlinks": 0}
        self.notes: list[str] = []
        self._spec = spec
        self._root = root
        self._sink = sink
        self._patience = patience

    def read(self, walked: Walked) -> None:
        """Read what was found. One wait for the youngest file serves all that changed before it."""
        young = [item.status.st_mtime_ns for item in walked.found if item.type == "file"]
        young = [changed for changed in young if not self._patience.is_quiet(changed)]
        if young:
            self._patience.wait(max(young))
        for item in walked.found:
            if item.type == "file":
                self._file(item)
            else:
                self._tell(item, item.status)

    def _file(self, item: Found) -> None:
        parts = beneath.split(item.path)
        try:
            with beneath.directory(self._root, parts[:-1]) as parent:
                status = beneath.status(parent, parts[-1]) or item.status
                if status.st_size <= steady.WHOLE_SIZE:
                    self._whole(item, parent, parts[-1])
                else:
                    self._streamed(item, parent, parts[-1])
        except OSError as error:
            if error.errno not in beneath.GONE:
                raise _unreadable(self._spec, item.path, error) from error
            self.notes.append(f"{item.path}: gone or replaced before it was read; not stored")

    def _whole(self, item: Found, parent: int, name: str) -> None:
        reading = steady.read_whole(parent, name, self._patience)
        self._tell(item, reading.status, len(reading.content))
        self._sink.write(reading.content)
        self._end(item, reading.doubt)

    def _streamed(self, item: Found, parent: int, name: str) -> None:
        """Read a large file once, as far as it went when opened: it cannot be taken back."""
        self._patience.wait(item.status.st_mtime_ns)
        descriptor = beneath.open_file(parent, name)
        try:
            before = os.fstat(descriptor)
            self._tell(item, before, before.st_size)
            for piece in steady.pieces(descriptor, before.st_size):
                self._sink.write(piece)
            held_still = beneath.same_file(before, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        quiet = self._patience.is_quiet(before.st_mtime_ns)
        self._end(item, "" if held_still and quiet else steady.doubt(held_still=held_still))

    def _end(self, item: Found, doubt: str) -> None:
        self.files.append(self._sink.end_file(os.path.join(self._spec.path, item.path)))
        if doubt:
            self.notes.append(f"unstable: {item.path} {doubt}")

    def _tell(self, item: Found, status: os.stat_result, size: int = 0) -> None:
        mode = status.st_mode & 0o7777
        self._sink.entry(
            Entry(
                path=item.path,
                type=item.type,
                mode=mode,
                mtime_ns=status.st_mtime_ns,
                uid=status.st_uid,
                gid=status.st_gid,
                user=_user(status.st_uid),
                group=_group(status.st_gid),
                link_target=item.link_target,
                size=size,
            )
        )
        self.counts[f"{item.type}s"] += 1
        detail = item.link_target if item.type == "symlink" else f"{mode:04o}"
        self.entries[item.path] = [item.type, detail, status.st_uid, status.st_gid]
        if item.type == "symlink" and _leads_out(self._spec.path, item):
            self.notes.append(f"{item.path}: a link to outside the root; stored as a link only")


@contextmanager
def _opened(spec: SourceSpec) -> Iterator[int]:
    """Hold the root open. It may itself be a link: where it leads is what the operator meant."""
    try:
        root = os.open(spec.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SourceMissing(spec.name, spec.path) from error
    except OSError as error:
        raise _unreadable(spec, "", error) from error
    try:
        yield root
    finally:
        os.close(root)


def _walked(spec: SourceSpec, root: int) -> Walked:
    try:
        return walk(root, _include(spec), Globs(spec.options.get("exclude") or ()))
    except OSError as error:
        raise _unreadable(spec, str(error.filename or ""), error) from error


def _include(spec: SourceSpec) -> Globs:
    return Globs(spec.options.get("include") or ("**",))


def _unreadable(spec: SourceSpec, path: str, error: OSError) -> SourceUnreadable:
    reason = (error.strerror or "unreadable").lower()
    return SourceUnreadable(
        f"source {spec.name!r}: {os.path.join(spec.path, path)}: {reason}",
        hint="Let the user that runs mcp-backup read it, or add it to the source's `exclude`. "
        "The source was not backed up.",
    )


def _passed_over(spec: SourceSpec, walked: Walked) -> Iterator[str]:
    for path, what in walked.specials.items():
        yield f"{path}: {what}; not stored"
    for index, text in enumerate(_include(spec).texts):
        if index not in walked.matched:
            link = walked.links.get(index)
            why = f": {link} is a link, and links are not followed" if link else ""
            yield f"pattern {text!r} matched nothing{why}"


def _shortened(notes: list[str]) -> list[str]:
    if len(notes) <= _MOST_NOTES:
        return notes
    return [*notes[:_MOST_NOTES], f"and {len(notes) - _MOST_NOTES} more notes like these"]


def _fingerprint(spec: SourceSpec, walked: Walked, now: int) -> str:
    digest = hashlib.sha256(
        json.dumps([spec.path, _include(spec).texts, spec.options.get("exclude") or []]).encode()
    )
    for item in walked.found:
        status = item.status
        known: list[str | int] = [item.path, item.type, item.link_target]
        known += [status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid]
        if item.type != "dir":  # a directory's own times move with names that nobody asked for
            if status.st_ctime_ns > now - _SETTLED_NS:
                return ""
            known += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        digest.update(json.dumps(known).encode())
    return f"files:{digest.hexdigest()}"


def _leads_out(root: str, item: Found) -> bool:
    inside = os.path.realpath(root)
    outer = os.path.join(inside, os.path.dirname(item.path))
    target = os.path.normpath(os.path.join(outer, item.link_target))
    return target != inside and not target.startswith(os.path.join(inside, ""))


@lru_cache(maxsize=1024)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(maxsize=1024)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
