"""The page cache, and how what is read or written once passes it by.

A backup reads a whole database and writes half as much, once a night. Left in the page cache, that
would displace what the machine's programs work with; and where a host gives memory only as it is
first touched, each page costs more than all that is done with it: to write a gigabyte took 1.7 s
instead of 0.3 (`python -m benchmarks.page_cache DIRECTORY`).

What others have cached stays theirs: of a file that we only read nothing is dropped that was there
before. (restic once dropped what it read, and took a live database's pages with it: restic issue
666. Linux's RWF_DONTCACHE drops only what a call itself brought in.)
"""

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

_RWF_DONTCACHE = 0x80  # include/uapi/linux/fs.h
_SINCE = (6, 16)  # from 6.14 on it exists, with races at first
_DEAR = 0.6e-9  # seconds a byte of empty pages: 0.2 where memory is at hand, else 1.5
_LOOK = 16  # writes
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL}  # the filesystem does not know it


def read_into(descriptor: int, out: memoryview, offset: int) -> int:
    """Read into `out` from `offset`, as `os.preadv`; cache nothing that is not cached already.

    On systems that cannot do that, what is read is cached as ever.
    """
    return _past(lambda flags: os.preadv(descriptor, [out], offset, flags))


def write(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write at `offset`, as `os.pwrite`; the disk begins with it, and what it has is not cached.

    On systems that cannot do that, what is written is cached as ever.
    """
    return _past(lambda flags: os.pwritev(descriptor, [data], offset, flags))


def drop(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Take a range of a file, to its end if `length` is 0, out of the cache, whoever cached it.

    What is not on the disk yet stays: fsync comes first.
    """
    _advise(descriptor, offset, length, "POSIX_FADV_DONTNEED")


class SharedWriter:
    """Writes to files that others write to as well, each other parts. Threads may share one.

    The kernel locks a file for whoever writes to it, and finds the memory under that lock. Where
    memory is dear when it is first touched, all would wait for that one after the other, each with
    a processor; so there empty pages are brought into the cache before, side by side. Elsewhere
    that costs more than it brings. One write in sixteen looks which it is.

    Pages can be brought in where the file is long enough already. From another machine's disk that
    would fetch zeros: do not make a file long there.
    """

    def __init__(self) -> None:
        """Begin."""
        self._writes, self._dear = 0, False

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        if not data:  # a range of no length would mean all that follows
            return
        if self._dear or self._writes % _LOOK == 0:
            began = perf_counter()
            _advise(descriptor, offset, len(data), "POSIX_FADV_WILLNEED")
            self._dear = perf_counter() - began > len(data) * _DEAR
        self._writes += 1
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written


def _past(call: Callable[[int], int]) -> int:
    """Make a call with the flags that leave nothing in the cache, or where it has none, without."""
    if _FLAGS:
        try:
            return call(_FLAGS)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return call(0)


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
