"""What the operating system's refusals mean to someone who keeps objects in a directory."""

import errno
import os
from pathlib import Path

from mcp_backup.errors import (
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_PASSING = {  # what a disk that was unplugged, a network filesystem or a busy machine answers
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENOENT,  # while putting: somebody removed the directory or the temporary file
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ENXIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
}


def meaning_of(error: OSError, verb: str, name: str, root: Path) -> StoreError:
    """Return the one of our errors that `error` is, met while doing `verb` to object `name`."""
    if error.errno == errno.ENOENT and verb in ("get", "size"):
        # without a root there is no repository, which is what missing its `config` means
        found = name == "config" or root.exists()
        return ObjectMissing(name, str(root)) if found else rootless(verb, root)
    fact = f"{verb} {name} in {root}: {(error.strerror or str(error)).lower()}"
    if error.errno in _FULL:
        return StoreFull(
            f"{fact}; {_free(root)} are free there",
            hint="Free some space, then run it again. What was stored before is intact.",
        )
    if error.errno in _DENIED:
        return StoreDenied(
            f"{fact}, as user {os.geteuid()}",
            hint="Give this user access to that directory, or correct `repository.location` "
            "in the settings. What was stored before is intact.",
        )
    if error.errno in _PASSING:
        return StoreUnavailable(fact, hint="Look at the disk and the system's log, then try again.")
    return StoreError(fact, hint="Look at that path. What was stored before is intact.")


def rootless(verb: str, root: Path) -> StoreUnavailable:
    """Word that the directory itself is not there."""
    return StoreUnavailable(
        f"{verb}: {root} does not exist",
        hint="Is its disk mounted? Otherwise correct `repository.location` in the settings, "
        "or run `mcp-backup init`. Nothing was changed.",
    )


def _free(root: Path) -> str:
    try:
        status = os.statvfs(root)
    except OSError:
        return "unknown amounts"
    return f"{status.f_bavail * status.f_frsize} bytes"
