"""Chunks taken from a file that is here already, instead of from the repository.

A database that is restored over itself, or beside itself, mostly holds what the backup holds. A
chunk at the same offset that hashes to the blob's id is that blob, wherever it came from: what is
hashed is what is written, so the file may be written to meanwhile. Chunks that differ, and whole
files that do, are left to be fetched.
"""

import os
import stat
from collections.abc import Iterator, Sequence, Set
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from mcp_backup.format.ids import BlobId
from mcp_backup.page_cache import SharedWriter

_ENOUGH = 4  # one of so many samples must agree, or the file is not read
_READ = 1 << 20


class Chunk(NamedTuple):
    """A chunk of the file to be made: where it lies in it, its size, and the blob that it is."""

    position: int
    length: int
    blob: BlobId


def promising(local: Path, samples: Sequence[Chunk]) -> bool:
    """Whether enough of `local` is what is wanted, by a few samples of it."""
    try:
        source = _opened(local)
    except OSError:
        return False
    try:
        same = sum(
            sha256(os.pread(source, chunk.length, chunk.position)).digest() == chunk.blob
            for chunk in samples
        )
    except OSError:
        return False
    finally:
        os.close(source)
    return same * _ENOUGH >= len(samples)


def take(local: Path, run: Sequence[Chunk], target: Path, shared: SharedWriter) -> Set[int]:
    """Copy what agrees of a run to its place in `target`; return the positions copied.

    All who write to `target` have one `shared`.

    Raises:
        OSError: `target` cannot be written. Of `local` nothing is required.
    """
    try:
        source = _opened(local)
    except OSError:
        return set()
    try:
        goal = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return set(_taken(source, run, goal, shared))
        finally:
            os.close(goal)
    finally:
        os.close(source)


def _taken(source: int, run: Sequence[Chunk], goal: int, shared: SharedWriter) -> Iterator[int]:
    room = memoryview(bytearray(_READ))
    for piece in _pieces(run):
        first, last = piece[0], piece[-1]
        size = last.position + last.length - first.position
        if size > len(room):
            room = memoryview(bytearray(size))
        data = room[: _read(source, room[:size], first.position)]
        begun = done = 0
        for chunk in piece:
            start = chunk.position - first.position
            end = start + chunk.length
            if sha256(data[start:end]).digest() == chunk.blob:
                yield chunk.position
            else:
                shared.write(goal, data[begun:start], first.position + begun)
                begun = end
            done = end
        shared.write(goal, data[begun:done], first.position + begun)


def _pieces(run: Sequence[Chunk]) -> Iterator[Sequence[Chunk]]:
    piece: list[Chunk] = []
    for chunk in run:
        if piece and chunk.position + chunk.length - piece[0].position > _READ:
            yield piece
            piece = []
        piece.append(chunk)
    yield piece


def _read(source: int, room: memoryview, position: int) -> int:
    try:
        return os.preadv(source, [room], position)
    except OSError:
        return 0  # a damaged disk: the repository has it


def _opened(local: Path) -> int:
    descriptor = os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{local} is no regular file")
    return descriptor
