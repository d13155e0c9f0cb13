"""A DuckDB database as files: what is there, before any library opens it.

    main              three headers of 4 KiB, then blocks of 256 KiB; each begins with a checksum
    .wal              what was committed since the last checkpoint
    .wal.checkpoint   the same, while a checkpoint is under way
    .wal.recovery     the same, while a crash is being recovered from

    0      checksum u64 │ "DUCK" │ version u64 │ …
    4096   checksum u64 │ iteration u64 │ …    two of them, written in turn; the one with
    8192   checksum u64 │ iteration u64 │ …    the larger iteration counts

Whoever has the file open holds a POSIX lock on all of it: a writer alone, or any number of
readers. Closing any descriptor of a file drops the locks that this process has on it.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3
from msgspec import Struct

from mcp_backup.errors import SourceMissing, SourceUnreadable

MAGIC = b"DUCK"  # at 8
FIRST_BLOCK = 12288  # where the headers end
SIDES = (".wal", ".wal.checkpoint", ".wal.recovery")
UNFINISHED = SIDES[1:]  # a checkpoint or a recovery is under way, or was when its program died
_HEADER = 4096
_SETTLED_NS = 2_000_000_000  # timestamps are up to 4 ms coarse on kernels before 6.13
_WAL_HEAD = 64
_SUFFIXES = (".duckdb", ".ddb")
_MOST_SHARDS = 100_000
_FACTOR, _SEED, _WORD = 0xBF58476D1CE4E5B9, 5381, (1 << 64) - 1


class Shard(Struct, frozen=True):
    """One database file of a source. `key` is its path in the source, "" where it is all of it.

    `path` is the real file, whatever links lead to it, since the write-ahead log lies beside that.
    """

    key: str
    path: Path

    @property
    def wal(self) -> Path:
        """Return the write-ahead log's path."""
        return beside(self.path, ".wal")

    @property
    def family(self) -> tuple[Path, ...]:
        """Return the paths of the database and its side files."""
        return (self.path, *(beside(self.path, side) for side in SIDES))


def beside(path: Path, side: str) -> Path:
    """Return the path of a side file."""
    return path.with_name(path.name + side)


def shards_of(name: str, path: str | Path) -> list[Shard]:
    """Find the databases of a source: the file itself, or all DuckDB files below a directory.

    Links below the directory are not followed. They come sorted by their keys.

    Raises:
        SourceMissing: there is nothing at `path`.
        SourceUnreadable: a directory without any, or what may not be read.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            return [Shard("", Path(os.path.realpath(path)))]
        root = Path(os.path.realpath(path))
        found = sorted(below(root), key=lambda shard: shard.key)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceMissing(name, path) from error
    except OSError as error:
        raise SourceUnreadable(
            f"source {name!r}: {error.filename or path}: {(error.strerror or '?').lower()}",
            hint="Let the user that runs mcp-backup read it. It was not backed up.",
        ) from error
    if not found or len(found) > _MOST_SHARDS:
        raise SourceUnreadable(
            f"source {name!r}: {len(found)} DuckDB files lie below {path}",
            hint="Correct `path` in the settings. It was not backed up.",
        )
    return found


def below(root: Path) -> Iterator[Shard]:
    """Yield the DuckDB files below a directory, told by their headers.

    One that is damaged has no header, so names that plainly mean DuckDB count as well: no shard
    may be missing from a backup without a word.
    """
    for place, directories, files in os.walk(root, onerror=_raise):
        directories.sort()
        for file in sorted(files):
            path = Path(place, file)
            if path.is_symlink() or not path.is_file() or file.endswith(SIDES):
                continue
            with open(path, "rb", buffering=0) as opened:
                if opened.read(12)[8:12] == MAGIC or path.suffix in _SUFFIXES:
                    yield Shard(os.path.relpath(path, root), path)


def refuse_foreign(name: str, shard: Shard) -> None:
    """Refuse what is no database file.

    Raises:
        SourceMissing: it is gone.
        SourceUnreadable: it is no DuckDB database, or may not be read.
    """
    try:
        status = os.stat(shard.path)
        with open(shard.path, "rb", buffering=0) as file:
            head = file.read(12) if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError as error:
        raise SourceMissing(name, shard.path) from error
    except OSError as error:
        raise SourceUnreadable(
            f"source {name!r}: {shard.path}: {(error.strerror or 'unreadable').lower()}",
            hint="Run mcp-backup as the user that owns the database, or grant it read access.",
        ) from error
    if head[8:12] != MAGIC:
        what = "is empty" if not status.st_size else "is not a DuckDB database"
        raise SourceUnreadable(
            f"source {name!r}: {shard.path} {what}",
            hint="Correct `path` in the settings if another file is meant. If this is the one, its "
            "content is lost: restore it from a backup.",
        )


def are_whole(headers: bytes) -> bool:
    """Tell whether the three headers are what their checksums say."""
    return len(headers) == FIRST_BLOCK and all(
        _checksum(headers[at + 8 : at + _HEADER]) == struct.unpack_from("<Q", headers, at)[0]
        for at in range(0, FIRST_BLOCK, _HEADER)
    )


def _checksum(data: bytes) -> int:
    """Return DuckDB's checksum of a header, which is that of its blocks too."""
    found = _SEED
    for (word,) in struct.iter_unpack("<Q", data):
        found ^= word * _FACTOR & _WORD
    return found


def identity(shard: Shard) -> tuple[tuple[object, ...], int]:
    """Return all by which a change is seen, and the newest time of change among the files."""
    seen: list[object] = []
    newest = 0
    for path, length in zip(
        shard.family, (FIRST_BLOCK, _WAL_HEAD, _WAL_HEAD, _WAL_HEAD), strict=True
    ):
        try:
            status = os.stat(path)
            with open(path, "rb", buffering=0) as file:
                head = file.read(length)
        except FileNotFoundError:
            continue
        times = (status.st_mtime_ns, status.st_ctime_ns)
        seen.append((path.name, status.st_dev, status.st_ino, status.st_size, times))
        seen.append(blake3(head).hexdigest())
        newest = max(newest, *times)
    return tuple(seen), newest


def fingerprint(shards: list[Shard], now: int) -> str:
    """Identify the live state; equal to an earlier one only if nothing was written since.

    DuckDB writes with `pwrite` and never through mapped memory, so every write moves the times.
    "" when something changed less than two seconds ago: a time stamp may be as coarse as that.
    """
    seen = []
    for shard in shards:
        found, newest = identity(shard)
        if now - newest < _SETTLED_NS:
            return ""
        seen.append((shard.key, found))
    return f"duckdb:{blake3(repr(seen).encode()).hexdigest()}"


@contextmanager
def locked(path: Path, *, alone: bool) -> Iterator[int | None]:
    """Hold the lock that DuckDB takes, as a reader, or `alone` as a writer; yield a descriptor.

    Yields None when another process holds it against us. Within the block nothing else in this
    process may open and close the file.
    """
    descriptor = os.open(path, (os.O_RDWR if alone else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        try:
            kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
