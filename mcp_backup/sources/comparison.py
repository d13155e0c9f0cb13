"""A staged set of files compared with what was seen when it was captured."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from mcp_backup.errors import IntegrityError
from mcp_backup.sources import beneath, digest
from mcp_backup.sources.source import Evidence, Finding

_PERMISSIONS = 0o777  # staging does not bring set-id and sticky bits back

_Seen = tuple[str, os.stat_result, str]  # type, status, link target


def differences(directory: Path, evidence: Evidence | None) -> list[Finding]:
    """Say where the tree in `directory` is not what the evidence says, in the order of paths.

    Compared are names, types, permissions, link targets, content; owners where we are root and
    could have set them. Without evidence every file is still read to its end.

    Raises:
        OSError: something in the tree cannot be read.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        present = dict(_tree(root))
        if evidence is None:
            for path, (type_, _, _) in present.items():
                if type_ == "file":
                    _digest_of(root, path)
            return []
        return list(_compare(root, present, evidence))
    finally:
        os.close(root)


def _compare(root: int, present: Mapping[str, _Seen], evidence: Evidence) -> Iterator[Finding]:
    entries = _entries(evidence.facts.get("entries", {}))
    digests = {file.path: file for file in evidence.files}
    for path in sorted(entries.keys() | digests.keys() | present.keys(), key=os.fsencode):
        if path not in present:
            yield Finding("missing", path, "was captured and is not there")
        elif path not in entries:
            yield Finding("extra", path, "is there and was not captured")
        else:
            yield from _compare_one(path, present[path], entries[path])
            if path in digests and present[path][0] == "file":
                expected, got = digests[path].digest, _digest_of(root, path)
                if got != expected:
                    size = present[path][1].st_size
                    yield Finding(
                        "digest",
                        path,
                        f"expected {digests[path].size} bytes with {expected}, got {size} "
                        f"bytes with {got}",
                    )


def _entries(found: Any) -> Mapping[str, Sequence[str | int]]:
    """Return what the evidence says of each path; a stranger may have written it.

    Raises:
        IntegrityError: it is not what a capture writes.
    """
    try:
        wrong = next((path for path, entry in found.items() if not _is_entry(path, *entry)), None)
    except (AttributeError, TypeError, ValueError) as error:
        wrong = str(error)
    if wrong is not None:
        raise IntegrityError(
            f"the evidence is none, at {wrong!r:.200}",
            hint="The repository holds something mcp-backup did not write; use another backup.",
        )
    entries: Mapping[str, Sequence[str | int]] = found
    return entries


def _is_entry(path: str, type_: object, detail: str, uid: object, gid: object) -> bool:
    os.fsencode(path + detail)
    if type_ != "symlink":
        int(detail, 8)
    return isinstance(type_, str) and type(uid) is int and type(gid) is int


def _compare_one(path: str, seen: _Seen, entry: Sequence[str | int]) -> Iterator[Finding]:
    (type_, status, target), (expected, detail, uid, gid) = seen, entry
    if type_ != expected:
        yield Finding("type", path, f"expected a {expected}, got a {type_}")
    elif type_ == "symlink":
        if target != detail:
            yield Finding("link", path, f"expected a link to {detail!r}, got one to {target!r}")
    elif (int(str(detail), 8) ^ status.st_mode) & _PERMISSIONS:
        got = stat.S_IMODE(status.st_mode)
        yield Finding("mode", path, f"expected mode {detail}, got {got:04o}")
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (uid, gid):
        owner = f"{status.st_uid}:{status.st_gid}"
        yield Finding("owner", path, f"expected owner {uid}:{gid}, got {owner}")


def _tree(root: int) -> Iterator[tuple[str, _Seen]]:
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        with beneath.directory(root, parts) as descriptor:
            for name in os.listdir(descriptor):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                type_, target = "special file", ""
                if stat.S_ISDIR(status.st_mode):
                    type_ = "dir"
                    waiting.append((*parts, name))
                elif stat.S_ISREG(status.st_mode):
                    type_ = "file"
                elif stat.S_ISLNK(status.st_mode):
                    type_, target = "symlink", os.readlink(name, dir_fd=descriptor)
                yield "/".join((*parts, name)), (type_, status, target)


def _digest_of(root: int, path: str) -> str:
    *outer, name = beneath.split(path)
    with (
        beneath.directory(root, tuple(outer)) as parent,
        FileIO(beneath.open_file(parent, name)) as file,
    ):
        return digest.of_file(file)
