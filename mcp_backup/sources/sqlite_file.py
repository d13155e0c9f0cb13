"""A live SQLite database as files: what is there, before any library opens it.

    main        the database
    -wal        committed pages that have not reached it yet (WAL mode)
    -shm        the WAL's index, rebuilt when missing
    -journal    pages as they were before a transaction under way (rollback modes)

The side files lie beside the real file, whatever links lead to it. Everything here opens and
closes plain files, so it comes before SQLite opens them in the same process, or after it has
closed them: closing drops every POSIX lock that the process holds on the file.
"""

import os
import stat
import time
from pathlib import Path

from blake3 import blake3
from msgspec import Struct

from mcp_backup.errors import SourceMissing, SourceUnreadable
from mcp_backup.sources import glance
from mcp_backup.sources.source import SourceSpec

MAGIC = b"SQLite format 3\0"
HEADER_SIZE = glance.HEADER_SIZE
WAL_MODE = 2  # of bytes 18 and 19 in the header; 1 is a rollback mode
_NEWEST_SCHEMA_FORMAT = 4  # bytes 44 to 47
_COPY = 1 << 20


class LiveFile(Struct, frozen=True):
    """One database file. `path` is the real one; `header` its first 100 bytes, or fewer."""

    name: str  # of the source
    path: str
    header: bytes
    status: os.stat_result

    @property
    def wal(self) -> str:
        """Return the WAL's path."""
        return self.path + "-wal"

    @property
    def shm(self) -> str:
        """Return the path of the WAL's index."""
        return self.path + "-shm"

    @property
    def journal(self) -> str:
        """Return the rollback journal's path."""
        return self.path + "-journal"

    @property
    def family(self) -> tuple[str, ...]:
        """Return the paths of the database and its side files."""
        return (self.path, self.wal, self.shm, self.journal)

    @property
    def in_wal_mode(self) -> bool:
        """Whether the header says so; a garbage header says nothing."""
        return self.header[:16] == MAGIC and self.header[18:19] == bytes([WAL_MODE])

    @property
    def fault(self) -> str:
        """Say why this cannot be a database that we can read, or ""."""
        header = self.header
        if not header:
            return "is empty (0 bytes)" if size_of(self.wal) == 0 else ""
        if header[:16] != MAGIC:
            return "is not an SQLite database, or is encrypted"
        if len(header) < HEADER_SIZE:
            return f"is cut off after {len(header)} bytes"
        if max(header[18:20]) > WAL_MODE:
            return f"was written by a newer SQLite (file format version {max(header[18:20])})"
        schema = int.from_bytes(header[44:48], "big")
        if schema > _NEWEST_SCHEMA_FORMAT and size_of(self.wal) == 0:
            return f"was written by a newer SQLite (schema format {schema})"
        return ""


def look(name: str, path: str | Path) -> LiveFile:
    """Look at the database file of source `name`.

    Raises:
        SourceMissing: there is nothing at `path`.
        SourceUnreadable: it is no regular file, or may not be read.
    """
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise SourceUnreadable(
                f"source {name!r}: {path} is {what}",
                hint="Set `path` to the database file itself. It was not backed up.",
            )
        with open(real, "rb", buffering=0) as file:
            header = file.read(HEADER_SIZE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceMissing(name, path) from error
    except PermissionError as error:
        raise SourceUnreadable(
            f"source {name!r}: {path} may not be read by this user",
            hint="Run mcp-backup as the user that owns the database, or grant it read access.",
        ) from error
    return LiveFile(name, real, header, status)


def refuse_faulty(live: LiveFile) -> None:
    """Refuse what is no database.

    Raises:
        SourceUnreadable: it is empty, something else, encrypted, or too new.
    """
    if live.fault:
        raise SourceUnreadable(
            f"source {live.name!r}: {live.path} {live.fault}",
            hint="Correct `path` in the settings if another file is meant. If this is the one, its "
            "content is lost: restore it from a backup.",
        )


def fingerprint(spec: SourceSpec) -> str:
    """Identify the live state; equal to an earlier one only if nothing was committed since.

    The WAL's size and header count beside the file's, since a commit may leave the file alone.
    "" when nothing sound can be said: a transaction is under way, something changed less than two
    seconds ago, or it cannot be read.
    """
    try:
        return mark(glance.told(spec.path))
    except OSError:
        return ""


def mark(told: str) -> str:
    """Make a fingerprint of what a glance told."""
    return f"sqlite:{blake3(told.encode()).hexdigest()}" if told else ""


def copy_set(live: LiveFile, directory: Path) -> Path | None:
    """Copy the database with its WAL or journal into `directory`; return the copy's path.

    None when anything was written meanwhile: then the copy may be torn, and is gone. The WAL's
    index is left out, as SQLite makes it anew.
    """
    before, newest = identity(live)
    if time.time_ns() - newest < glance.SETTLED_NS // 100:
        return None  # a change in the same tick of the clock would not be seen
    copy = directory / "database"
    for suffix in ("-journal", "-wal", ""):
        if suffix == "" or size_of(live.path + suffix):
            copy_file(live.path + suffix, Path(f"{copy}{suffix}"))
    if identity(live)[0] == before:
        return copy
    for suffix in ("-journal", "-wal", ""):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
    return None


def copy_file(source: str | Path, target: Path) -> None:
    """Copy bytes into a new file, mode 0600; not durable."""
    with open(source, "rb", buffering=0) as old, open(target, "xb", buffering=0) as new:
        target.chmod(0o600)
        while piece := old.read(_COPY):
            new.write(piece)


def size_of(path: str | Path) -> int:
    """Return a file's size in bytes, 0 when there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def changed_ns(live: LiveFile) -> int:
    """Return when the content last changed, as far as files tell: the newer of database and WAL."""
    changed = live.status.st_mtime_ns
    try:
        wal = os.stat(live.wal)
    except FileNotFoundError:
        return changed
    return max(changed, wal.st_mtime_ns) if wal.st_size else changed


def identity(live: LiveFile) -> tuple[tuple[object, ...], int]:
    """Return all by which a change is seen, and the newest time of change among the files."""
    return glance.identity(live.path)
