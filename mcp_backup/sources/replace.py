"""Replacing one name in a directory, so that a crash leaves the old thing or the new one.

The new thing is made whole under a temporary name beside it, fsynced, and renamed. A directory
cannot be renamed over, nor by one a file, so there the old thing steps aside for a moment:

    .mcp-backup-<key>.new    what will be `name`; not whole yet, or whole and not yet renamed
    .mcp-backup-<key>.old    what was `name`, between two renames and until it is removed

`key` follows from the name, so whoever comes after a crash finds the leftovers of this very name
and no others: it puts `.old` back if the name is vacant, and removes the rest.

Directories are given by descriptor (`beneath`). Everything here blocks and raises OSError.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from blake3 import blake3
from msgspec import Struct

from mcp_backup.durable import fsync_file
from mcp_backup.sources import beneath

_PIECE = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS_DIFFER = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}
_SPECIAL_BITS = 0o7000


class Attributes(Struct, frozen=True):
    """What a name has beside its content. `mode` holds the permission bits (0o7777)."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Attributes":
        """Take them from a status."""
        return cls(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)


def put_file(parent: int, name: str, content: int, attributes: Attributes) -> bool:
    """Make `name` a file of what is left to read from the descriptor `content`.

    Returns whether the owner could be set; where it could not, set-id bits are not set either.
    """
    with _fresh(parent, name) as temporary:
        descriptor = os.open(temporary, _CREATE, 0o600, dir_fd=parent)
        try:
            copy(content, descriptor)
            owned = set_attributes(descriptor, attributes)
            fsync_file(descriptor)
        finally:
            os.close(descriptor)
        _exchange(parent, temporary, name)
    return owned


def put_link(parent: int, name: str, target: str, attributes: Attributes) -> bool:
    """Make `name` a symbolic link to `target`; returns whether the owner could be set."""
    with _fresh(parent, name) as temporary:
        os.symlink(target, temporary, dir_fd=parent)
        owned = True
        try:
            os.chown(
                temporary, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False
            )
        except PermissionError:
            owned = False
        times = (attributes.mtime_ns, attributes.mtime_ns)
        os.utime(temporary, ns=times, dir_fd=parent, follow_symlinks=False)
        _exchange(parent, temporary, name)
    return owned


def put_directory(parent: int, name: str) -> None:
    """Make `name` a directory, empty and private if it was not one."""
    status = beneath.status(parent, name)
    if status is not None and stat.S_ISDIR(status.st_mode):
        recover(parent, name)
        return
    with _fresh(parent, name) as temporary:
        os.mkdir(temporary, 0o700, dir_fd=parent)
        _exchange(parent, temporary, name)


def remove(parent: int, name: str) -> None:
    """Remove the file or link `name`; what is not there is removed already."""
    recover(parent, name)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
        os.fsync(parent)


def recover(parent: int, name: str) -> None:
    """Clear away what an interrupted replacement of `name` left; vacant, it gets its old self."""
    new, old = _names(name)
    _remove_whole(parent, new)
    if beneath.status(parent, old) is not None:
        if beneath.status(parent, name) is None:
            os.rename(old, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
        else:
            _remove_whole(parent, old)


def set_attributes(descriptor: int, attributes: Attributes) -> bool:
    """Set owner, mode and time of an open file or directory; returns whether the owner took.

    The owner first: a change of owner drops set-id bits. Under another owner than the one they
    were meant for they are not set at all.
    """
    mode, owned = attributes.mode, True
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (attributes.uid, attributes.gid):
        try:
            os.fchown(descriptor, attributes.uid, attributes.gid)
        except PermissionError:
            mode, owned = mode & ~_SPECIAL_BITS, False
    os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
    return owned


def copy(source: int, target: int) -> int:
    """Copy what is left to read in one descriptor to another; return the bytes copied."""
    size = 0
    while piece := os.read(source, _PIECE):
        _write_all(target, piece)
        size += len(piece)
    return size


@contextmanager
def _fresh(parent: int, name: str) -> Iterator[str]:
    """Give a temporary name that is vacant, and leave it vacant, whatever happens."""
    recover(parent, name)
    temporary, _ = _names(name)
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):  # the first error matters more
            _remove_whole(parent, temporary)
        raise


def _exchange(parent: int, temporary: str, name: str) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as error:
        if error.errno not in _KINDS_DIFFER:
            raise
        _step_aside(parent, temporary, name)
    os.fsync(parent)


def _step_aside(parent: int, temporary: str, name: str) -> None:
    _, old = _names(name)
    os.rename(name, old, src_dir_fd=parent, dst_dir_fd=parent)
    try:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError:
        os.rename(old, name, src_dir_fd=parent, dst_dir_fd=parent)
        raise
    os.fsync(parent)
    _remove_whole(parent, old)


def _remove_whole(parent: int, name: str) -> None:
    """Remove whatever `name` is, with everything beneath, following no link."""
    status = beneath.status(parent, name)
    if status is None:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def _names(name: str) -> tuple[str, str]:
    key = blake3(os.fsencode(name)).hexdigest(8)
    return f".mcp-backup-{key}.new", f".mcp-backup-{key}.old"


def _write_all(descriptor: int, data: bytes) -> None:
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += os.write(descriptor, rest[done:])
