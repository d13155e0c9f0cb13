"""Files that survive a power cut: written whole beside their name, fsynced, then given it.

A name exists only when its bytes are on the disk, and it is still there after a crash, because
the directory is fsynced too. Whatever interrupts a call leaves the old file, the new one, or the
old one and a temporary `<name>-tmp-<16 hexadecimal digits>` beside it.

Everything here blocks, raises `OSError` as it comes, and is called in worker threads or processes.
"""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from mcp_backup import page_cache

_TEMPORARY = re.compile(r"(?P<name>.+)-tmp-[0-9a-f]{16}", re.DOTALL)
_PIECE = (
    256 << 10
)  # for larger writes Linux looks for larger pages: 64 packs took 2 instead of 0.2 s
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}  # some network filesystems


def write_durably(path: Path, data: bytes | bytearray | memoryview, mode: int = 0o600) -> None:
    """Make `path` a file of exactly `data`, replacing what is there; old or new, never mixed."""
    with _written(path, data, mode) as temporary:
        os.replace(temporary, path)
        fsync_directory(path.parent)


def create_durably(
    path: Path, data: bytes | bytearray | memoryview, mode: int = 0o600, *, cached: bool = True
) -> None:
    """Make `path` a file of exactly `data`, unless it exists.

    Of several processes that create the same name at once, exactly one succeeds. What is not to
    stay `cached` is read from the disk by whoever reads it next.

    Raises:
        FileExistsError: it exists; it was not touched, and its name is durable.
    """
    with _written(path, data, mode, cached=cached) as temporary:
        try:
            _publish(temporary, path)
        finally:  # whoever won may not have come to this yet
            fsync_directory(path.parent)


def link_durably(source: Path, target: Path) -> None:
    """Give the file `source` a second name.

    Raises:
        FileExistsError: `target` exists; it was not touched.
        OSError: among others, where the filesystem has no hard links.
    """
    os.link(source, target)
    fsync_directory(target.parent)


def replace_durably(source: Path, target: Path) -> None:
    """Rename `source` to `target`, replacing what is there. Both on one filesystem."""
    os.replace(source, target)
    fsync_directory(target.parent)
    if source.parent != target.parent:
        fsync_directory(source.parent)


def remove_durably(path: Path) -> None:
    """Remove the file `path`; what is not there is removed already."""
    path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        fsync_directory(path.parent)


def make_directory_durably(path: Path, mode: int = 0o700) -> None:
    """Make the directory `path`, and those above it, where they are missing."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory_durably(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        with suppress(PermissionError):  # FAT knows fewer modes
            path.chmod(mode)  # whatever the umask took away
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable, where its filesystem can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FSYNC:
            raise
    finally:
        os.close(descriptor)


def fsync_file(descriptor: int) -> None:
    """Make an open file's bytes durable."""
    if sys.platform == "darwin":  # there, fsync leaves them in the drive's cache
        with suppress(OSError):  # network and foreign filesystems know only fsync
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def temporary_name(name: str) -> str:
    """Return a fresh temporary name for what will be called `name`."""
    return f"{name}-tmp-{token_hex(8)}"


def final_name(name: str) -> str | None:
    """Return what the file of this temporary name was to be called; None if it is not one."""
    match = _TEMPORARY.fullmatch(name)
    return match["name"] if match else None


@contextmanager
def _written(
    path: Path, data: bytes | bytearray | memoryview, mode: int, *, cached: bool = True
) -> Iterator[Path]:
    temporary = path.with_name(temporary_name(path.name))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            _write_all(descriptor, data)
            with suppress(PermissionError):  # FAT knows fewer modes; the bytes matter more
                os.fchmod(descriptor, mode)
            fsync_file(descriptor)
            if not cached:
                page_cache.drop(descriptor)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        with suppress(OSError):  # a leftover is harmless, and the first error matters more
            temporary.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    with memoryview(data).cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(descriptor, rest[done : done + _PIECE])


def _publish(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_exclusively(temporary, path)


def _rename_exclusively(temporary: Path, path: Path) -> None:
    """Rename unless `path` exists. Atomic among ourselves, by a lock on the directory."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # where it cannot be locked either, the window stays open
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.rename(path)
    finally:
        os.close(descriptor)
