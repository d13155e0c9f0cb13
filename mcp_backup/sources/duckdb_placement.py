"""DuckDB databases put live: file and write-ahead log together, and only while nobody has them.

    alone        every file is locked as its writer would, or the restore is refused and says who
                 has it open: to those, a renamed file would be lost, and so would what they write
    one step     what goes live is one file, into which its log was folded beforehand; the log of
                 what was live is folded as well, which changes none of its values. So a single
                 rename is the exchange: whatever kills us, old or new is found
    unhaunted    no log of the old content is ever replayed over the new

Where DuckDB cannot fold (a newer one wrote the file, or it is damaged) the log goes first, or
comes last; then a kill in between leaves the file without it, and the undo point has both.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from mcp_backup.durable import (
    fsync_file,
    make_directory_durably,
    temporary_name,
)
from mcp_backup.errors import RestoreError, SourceError, TargetBusy
from mcp_backup.sources.confined import held, refuse_other_names, refuse_other_place
from mcp_backup.sources.duckdb_asking import Fault, ask
from mcp_backup.sources.duckdb_copy import Reader
from mcp_backup.sources.duckdb_file import SIDES, Shard, beside, locked, shards_of
from mcp_backup.sources.duckdb_layout import live_shard, staged_shards
from mcp_backup.sources.holders import holders_of, named
from mcp_backup.sources.source import Holder, SourceSpec

UNTOUCHED = "Nothing live was touched."
_LEFT = re.compile(r"(?P<name>.+)-tmp-[0-9a-f]{16}(?:\.wal.*)?", re.DOTALL)  # by a kill


class Exchange(Struct, frozen=True):
    """One file to put live: `image`, with its log beside it if it has one, at `live`."""

    image: Path
    live: Shard


def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Put the databases in the directory `staged` live; return notes for people.

    Raises:
        TargetBusy: somebody has one of them open; nothing was changed.
        RestoreError: one cannot be written.
    """
    shards = staged_shards(spec, staged)
    exchange(spec.name, [Exchange(shard.path, live_shard(spec, shard.key)) for shard in shards])
    return _left_alone(spec, shards)


def holders_of_source(spec: SourceSpec) -> list[Holder]:
    """Find the processes that have a database of the source or a side file open."""
    try:
        shards = shards_of(spec.name, spec.path)
    except SourceError:
        return []
    return holders_of(str(path) for shard in shards for path in shard.family)


def exchange(name: str, exchanges: Sequence[Exchange]) -> None:
    """Make each live file hold what its image holds, all prepared before the first is touched."""
    existing = [each.live for each in exchanges if os.path.lexists(each.live.path)]
    with alone(name, existing):
        pass  # to be refused before any work is done
    with ExitStack() as stack:
        fresh = []
        for each in exchanges:
            with worded(name, each.live.path):
                fresh.append(stack.enter_context(_prepared(name, each)))
        folded = [shard for shard in existing if _folded(name, shard)]
        stack.enter_context(alone(name, existing))
        _refuse_news(name, folded)
        for each, temporary in zip(exchanges, fresh, strict=True):
            with worded(name, each.live.path):
                _exchanged(name, each.live, temporary, is_new=each.live not in existing)


@contextmanager
def alone(name: str, shards: Sequence[Shard]) -> Iterator[list[int]]:
    """Hold live files as their only writer would; yield their descriptors.

    Raises:
        TargetBusy: somebody has one open; names who.
        RestoreError: one may not be written.
    """
    with ExitStack() as stack:
        descriptors = []
        for shard in shards:
            with worded(name, shard.path):
                descriptor = stack.enter_context(locked(shard.path, alone=True))
            if descriptor is None:
                raise _busy(name, shard)
            refuse_other_place(descriptor, shard.path)
            refuse_other_names(path for path in shard.family if os.path.lexists(path))
            descriptors.append(descriptor)
        yield descriptors


@contextmanager
def worded(name: str, path: Path) -> Iterator[None]:
    """Say in our words what the system refuses."""
    try:
        yield
    except OSError as error:
        raise RestoreError(
            f"source {name!r}: {path}: {(error.strerror or str(error)).lower()}",
            hint="Put that right and try again. Every file is either as it was or as it is to be.",
        ) from error


def copy_durably(source: Path, target: Path, status: os.stat_result) -> None:
    """Copy a file into a new one with mode, owner where permitted, and times of `status`."""
    old = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy_descriptor(old, target, status)
    finally:
        os.close(old)


def copy_descriptor(old: int, target: Path, status: os.stat_result) -> None:
    """Do the same from an open file; on return the bytes are durable, the name is not yet."""
    with open(target, "xb", buffering=0) as new:
        target.chmod(0o600)
        for piece in Reader().pieces(old, os.fstat(old).st_size):
            new.write(piece)
        give_attributes(new.fileno(), status)


def give_attributes(descriptor: int, status: os.stat_result) -> None:
    """Give an open file the mode, times and, where permitted, the owner in `status`, durably."""
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, status.st_mode & 0o777)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
    fsync_file(descriptor)


def remove_sides(path: Path, parent: int) -> None:
    """Remove every side file of a database in the directory `parent`, durably."""
    for side in SIDES:
        remove(beside(path, side), parent)


def remove(path: Path, parent: int) -> None:
    """Remove a file of the directory `parent`, durably; what is not there is removed already."""
    with suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=parent)
        os.fsync(parent)


def rename(source: Path, target: Path, parent: int) -> None:
    """Rename a file of the directory `parent`, durably, replacing what is there."""
    os.replace(source.name, target.name, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)


@contextmanager
def _prepared(name: str, each: Exchange) -> Iterator[Path]:
    """Have the image ready beside its place for the block, as one file wherever that can be."""
    live = each.live.path
    make_directory_durably(live.parent)
    with held(live.parent) as parent:
        for left in os.listdir(parent):
            match = _LEFT.fullmatch(left)
            if match and match["name"] == live.name:
                os.unlink(left, dir_fd=parent)
    temporary = live.with_name(temporary_name(live.name))
    status = each.image.stat()
    log = beside(each.image, ".wal")
    try:
        copy_durably(each.image, temporary, status)
        if log.exists():
            copy_durably(log, beside(temporary, ".wal"), log.stat())
            with suppress(Fault):  # then the two of them go live, one after the other
                ask(name, "fold", temporary)
                for side in SIDES:
                    beside(temporary, side).unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
        try:
            give_attributes(descriptor, live.stat() if live.exists() else status)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        for path in Shard("", temporary).family:
            path.unlink(missing_ok=True)


def _folded(name: str, live: Shard) -> bool:
    """Bring a live log into its file; returns whether the file is now all there is."""
    if not any(path.exists() and path.stat().st_size for path in live.family[1:]):
        return True
    try:
        ask(name, "fold", live.path)
    except Fault as fault:
        if fault.why == "locked":
            raise _busy(name, live) from fault
        return False  # damaged, or too new: the undo point has it as it was
    return True


def _refuse_news(name: str, folded: Sequence[Shard]) -> None:
    for live in folded:
        if live.wal.exists() and live.wal.stat().st_size:
            raise TargetBusy(
                f"source {name!r}: {live.path} was written to while it was being restored",
                hint=f"Stop the program that uses it, then try again. {UNTOUCHED}",
            )


def _exchanged(name: str, live: Shard, temporary: Path, *, is_new: bool) -> None:
    log = beside(temporary, ".wal")
    with held(live.path.parent) as parent:
        remove_sides(live.path, parent)
        if is_new:
            try:
                os.link(temporary.name, live.path.name, src_dir_fd=parent, dst_dir_fd=parent)
            except FileExistsError as error:
                raise TargetBusy(
                    f"source {name!r}: {live.path} appeared while it was being restored",
                    hint=f"Plan the restore again. {UNTOUCHED}",
                ) from error
        else:
            rename(temporary, live.path, parent)
        os.fsync(parent)
        if log.exists():
            rename(log, live.wal, parent)


def _busy(name: str, shard: Shard) -> TargetBusy:
    who = named(holders_of(str(path) for path in shard.family))
    return TargetBusy(
        f"source {name!r}: {shard.path} is open in {who or 'a process that we may not see'}",
        hint=f"Stop that program, then try again. {UNTOUCHED}",
    )


def _left_alone(spec: SourceSpec, placed: Sequence[Shard]) -> list[str]:
    """Say which live databases the backup does not have."""
    keys = {shard.key for shard in placed}
    extra = [shard.key for shard in shards_of(spec.name, spec.path) if shard.key not in keys]
    if not extra:
        return []
    first = ", ".join(extra[:5]) + (", ..." if len(extra) > 5 else "")
    return [f"left alone, being newer than the backup or made elsewhere: {first} ({len(extra)})"]
