"""Under a root and nowhere else: opening by name, one component at a time, no link followed.

A live tree belongs to others, who may swap a directory for a link between two of our calls; a
staged tree comes out of a repository that somebody else may have written. Both are only reached
through descriptors: each component is opened in its parent's descriptor with O_NOFOLLOW, so a
path can end early with an error, but never outside.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK and O_NOCTTY: a pipe or a terminal swapped in for a file must not hold us
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

TEMPORARY = re.compile(
    r"\.mcp-backup-[0-9a-f]{16}\.(?:new|old)"
)  # what `placement` leaves if killed

# what opening says when a name is gone, or has become a link, since it was listed
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


def is_plain(name: str) -> bool:
    """Say whether `name` is one component: something that can only name a child."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def split(path: str) -> tuple[str, ...]:
    """Return a relative path's components.

    Raises:
        ValueError: the path is empty, absolute, or not made of plain names.
    """
    parts = tuple(path.split("/"))
    if not all(is_plain(part) for part in parts):
        raise ValueError(f"{path!r} is not a plain relative path")
    return parts


@contextmanager
def directory(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """Hold the directory `parts` under `root` open for the block; yields its descriptor."""
    descriptor = os.dup(root)
    try:
        for part in parts:
            inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(parent: int, name: str) -> int:
    """Open the regular file `name` for reading; the caller closes it.

    Raises:
        OSError: not there, not permitted; ENXIO when it is there but not a regular file.
    """
    descriptor = os.open(name, _FILE, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "not a regular file", name)
    return descriptor


def status(parent: int, name: str) -> os.stat_result | None:
    """Return the status of `name` itself, not of what it points to; None when it is not there."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Say whether two looks saw the same file with nothing written to it in between."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )
