"""What the page cache holds when a program begins, and what filling it costs on this machine.

`python -m benchmarks.page_cache DIRECTORY` writes a gigabyte there and reads it, three times each
way: as ever, and past the page cache. Each begins after a pause, in which a virtual machine's host
may take back what memory is free.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from mcp_backup import page_cache

_Each = Callable[[int, int], int]  # a descriptor and an offset → bytes done

_PIECE = 512 << 10
_PIECES = 2048
_PAUSE = 4.0  # seconds
_ROUNDS = 3


def warm(file: Path) -> None:
    """Read a file, so that all of it is in the page cache."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(_PIECE):
            pass


def cool(directory: Path) -> None:
    """Take all files below a directory out of the page cache."""
    os.sync()
    for place, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(os.path.join(place, name), os.O_RDONLY)
            page_cache.drop(descriptor)
            os.close(descriptor)


def main(directory: Path) -> None:
    """Say what each way takes, in seconds: the median of three."""
    file, piece = directory / "page_cache.bytes", os.urandom(_PIECE)
    room = memoryview(bytearray(_PIECE))
    writes: dict[str, _Each] = {
        "write, with fsync": lambda to, at: os.pwrite(to, piece, at),
        "write past the cache": lambda to, at: page_cache.write(to, piece, at),
    }
    reads: dict[str, _Each] = {
        "read": lambda of, at: os.preadv(of, [room], at),
        "read past the cache": lambda of, at: page_cache.read_into(of, room, at),
    }
    try:
        for way, each in writes.items():
            _say(way, [_seconds(file, each, os.O_CREAT | os.O_TRUNC) for _ in range(_ROUNDS)])
        for way, each in reads.items():
            _say(way, [_seconds(file, each) for _ in range(_ROUNDS)])
    finally:
        file.unlink(missing_ok=True)


def _seconds(file: Path, each: _Each, flags: int = 0) -> float:
    descriptor = os.open(file, os.O_RDWR | flags, 0o600)
    page_cache.drop(descriptor)
    time.sleep(_PAUSE)
    began = time.perf_counter()
    for number in range(_PIECES):
        each(descriptor, number * _PIECE)
    os.fsync(descriptor)
    seconds = time.perf_counter() - began
    os.close(descriptor)
    return seconds


def _say(way: str, seconds: Sequence[float]) -> None:
    print(f"{way:22} {median(seconds):.2f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
