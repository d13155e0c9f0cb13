"""The page cache, and how what is read or written once passes it by.

A backup reads a whole database and writes half as much, once a night. Left in the page cache, that
would displace what the machine's programs work with; and where a host gives memory only as it is
first touched, each page costs more than all that is done with it: to write a gigabyte took 1.7 s
instead of 0.3 (`python -m benchmarks.page_cache`).

What others have cached stays theirs: of a file that we only read nothing is dropped that was there
before. (restic once dropped what it read, and took a live database's pages with it: restic issue
666. Linux's RWF_DONTCACHE drops only what a call itself brought in.)
"""

import errno
import os
import re
import sys
from contextlib import suppress

_RWF_DONTCACHE = 0x80  # include/uapi/linux/fs.h
_SINCE = (6, 16)  # from 6.14 on it exists, with races at first
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL}  # the filesystem does not know it


def read_into(descriptor: int, out: memoryview, offset: int) -> int:
    """Read into `out` from `offset`, as `os.preadv`; cache nothing that is not cached already.

    On systems that cannot do that, what is read is cached as ever.
    """
    if _FLAGS:
        try:
            return os.preadv(descriptor, [out], offset, _FLAGS)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return os.preadv(descriptor, [out], offset)


def write(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write at `offset`, as `os.pwrite`; the disk begins with it, and what it has is not cached.

    On systems that cannot do that, it is cached until `drop`.
    """
    if _FLAGS:
        try:
            return os.pwritev(descriptor, [data], offset, _FLAGS)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return os.pwrite(descriptor, data, offset)


def make_ready(descriptor: int, offset: int, length: int) -> None:
    """Have empty pages of a new file in the cache before they are written to, if it is long enough.

    The kernel locks a file for whoever writes to it, so several who write to one would get its
    memory one after the other, and wait for each other with a processor; like this they get it
    side by side. From a file on another machine it would fetch the zeros: do not make that long.
    """
    _advise(descriptor, offset, length, "POSIX_FADV_WILLNEED")


def drop(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Take a range of a file, to its end if `length` is 0, out of the cache, whoever cached it.

    What is not on the disk yet stays: fsync comes first.
    """
    _advise(descriptor, offset, length, "POSIX_FADV_DONTNEED")


def _advise(descriptor: int, offset: int, length: int, advice: str) -> None:
    """Tell the kernel, where it can be told (not on macOS, nor of every filesystem)."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # nothing but speed depends on it
            os.posix_fadvise(descriptor, offset, length, getattr(os, advice))


def _flags() -> int:
    """Return the flags of an operation that leaves nothing in the cache; 0 where there are none."""
    numbers = re.findall(r"[0-9]+", os.uname().release)[:2]
    known = sys.platform == "linux" and tuple(map(int, numbers)) >= _SINCE
    return _RWF_DONTCACHE if known else 0


_FLAGS = _flags()
