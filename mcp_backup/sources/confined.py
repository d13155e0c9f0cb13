"""Where things really are: what a restore opened is what the operator named, and no other's.

Whoever can write to the directories of live data may put a link in its place while a restore
runs. So what was opened is asked where it is, by its descriptor, and how many names it has: a
file with one name, at the path where the plan had found it, is nobody else's. Databases are
written through libraries that open by name, so they are asked after every opening and before the
first write.
"""

import fcntl
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mcp_backup.errors import RestoreError
from mcp_backup.sources.source import SourceSpec

_MAC_GET_PATH = 50  # F_GETPATH; the longest path has 1024 bytes
_OPEN_FILES = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def real_path(spec: SourceSpec) -> str:
    """Return where a source's path leads; where a plan had found it, while that is so.

    Raises:
        RestoreError: it leads elsewhere by now.
    """
    found = os.path.realpath(spec.path)
    if spec.real and found != spec.real:
        raise elsewhere(spec.path, f"leads to {found} by now, and led to {spec.real}")
    return found


def elsewhere(path: object, why: str) -> RestoreError:
    """Return the error that says that `path` is not what it was."""
    return RestoreError(
        f"{path} {why}",
        hint="A link was put in its place, or in that of a directory on the way. Find out by whom, "
        "put it right, and plan the restore again. Nothing outside it was touched.",
    )


def path_of(descriptor: int) -> str:
    """Return where an open file or directory is now."""
    if sys.platform == "linux":
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return os.fsdecode(fcntl.fcntl(descriptor, _MAC_GET_PATH, bytes(1024)).split(b"\0")[0])


def refuse_other_place(descriptor: int, path: Path | str) -> None:
    """Refuse a descriptor that is not at the real path `path`.

    Raises:
        RestoreError: it is elsewhere.
    """
    found = path_of(descriptor)
    if found != str(path):
        raise elsewhere(path, f"was opened, and that was {found}")


def refuse_other_names(paths: Iterable[Path | str]) -> None:
    """Refuse files that have another name somewhere, and links, among those that are to be written.

    Raises:
        RestoreError: names the first.
    """
    for path in paths:
        with suppress(FileNotFoundError):
            _judge(path, os.lstat(path))


def refuse_links(ours: Path, below: Path) -> None:
    """Refuse a path below a directory of ours on which there is a link.

    Raises:
        RestoreError: names the link.
    """
    path = ours
    for part in below.relative_to(ours).parts:
        path /= part
        if os.path.islink(path):
            raise elsewhere(path, "is a link")


@contextmanager
def held(directory: Path) -> Iterator[int]:
    """Hold open the directory with the real path `directory`.

    Raises:
        RestoreError: a link led elsewhere.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        refuse_other_place(descriptor, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def open_files() -> frozenset[int]:
    """Return the descriptors that this process has open."""
    return frozenset(map(int, os.listdir(_OPEN_FILES)))


def refuse_strangers(before: Collection[int], family: Collection[str]) -> None:
    """Refuse what was opened since `before` unless it is one of `family` and has no other name.

    Raises:
        RestoreError: names what it is.
    """
    for descriptor in open_files().difference(before):
        with suppress(FileNotFoundError, OSError):  # that of the listing is closed again
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                continue
            found = path_of(descriptor)
            if found not in family:
                raise elsewhere(min(family, key=len), f"was opened, and that was {found}")
            _judge(found, status)


def _judge(path: Path | str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise elsewhere(path, "is a link")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise elsewhere(path, f"has {status.st_nlink} names (hard links)")
