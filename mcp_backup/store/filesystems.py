"""Which filesystem a directory is on: one of this machine's own disks, or something else.

Only names that are known count as own: what is shared over a network (NFS, CIFS, 9p, virtiofs),
made by a program (FUSE), or put together from others (overlay) may list a directory from a cache.
Other systems than Linux tell nothing here, and nothing is assumed of them.
"""

import os
from pathlib import Path

_OWN = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"})
_MOUNTS = Path("/proc/self/mountinfo")


def is_own_disk(directory: Path) -> bool:
    """Tell whether `directory` is surely on a filesystem that this kernel alone keeps."""
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return False
    return filesystem_of(os.path.realpath(directory), mounts) in _OWN


def filesystem_of(path: str, mounts: str) -> str:
    """Return the type of the filesystem that an absolute `path` without links is on, or "".

    `mounts` is a text like /proc/self/mountinfo: a line a mount, later ones above earlier ones.

    Source: proc(5).
    """
    found, longest = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words, kinds = before.split(" "), after.split(" ")
        point = _unescaped(words[4]) if len(words) > 4 else ""
        if len(point) >= longest and _is_at_or_below(path, point):
            found, longest = kinds[0], len(point)
    return found


def _is_at_or_below(path: str, point: str) -> bool:
    return bool(point) and (path == point or path.startswith(point.rstrip("/") + "/"))


def _unescaped(point: str) -> str:
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(escaped, character)
    return point
