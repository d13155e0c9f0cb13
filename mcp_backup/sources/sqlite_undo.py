"""Undo points of SQLite databases: what was live before a restore, and how it comes back.

    kept.json    what is here; written last, so that a directory without it is no undo point
    image        a consistent copy, if one could be had
    raw          else the files as they were: raw, raw-wal, raw-journal (-shm is made anew)

A healthy database comes back through the same exchange as a restore. Raw files come back byte for
byte, by rename, and only while nobody has the database open.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from msgspec import Struct

from mcp_backup import page_cache
from mcp_backup.durable import (
    fsync_directory,
    make_directory_durably,
    temporary_name,
    write_durably,
)
from mcp_backup.errors import (
    RestoreError,
    SourceBusy,
    SourceError,
    SourceUnreadable,
    TargetBusy,
)
from mcp_backup.record import asdict
from mcp_backup.sources.confined import held, real_path, refuse_other_names
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.source import SourceSpec
from mcp_backup.sources.sqlite_pages import WriteAt
from mcp_backup.sources.sqlite_placement import (
    copy_durably,
    exchange,
    give_attributes,
    refuse_holders,
)
from mcp_backup.sources.sqlite_plain import readable
from mcp_backup.sources.sqlite_reading import snapshot

_RECORD = "kept.json"
_VERSION = 1
_IMAGE = "image"
_RAW = "raw"
_SIDES = ("-journal", "-wal")
_FAMILY = ("", *_SIDES, "-shm")


class _Kept(Struct, frozen=True):
    """The record. `raw` are the suffixes of the raw files: "" is the database itself."""

    state: Literal["present", "damaged", "absent"]
    original: str
    raw: tuple[str, ...] = ()
    version: int = _VERSION


def keep(spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
    """Save the live database into the empty `directory`, durably. `staged` does not matter.

    Raises:
        TargetBusy: it stayed locked.
        SourceError: no space is left for the copy.
    """
    path, content = Path(real_path(spec)), ""
    refuse_other_names(f"{path}{suffix}" for suffix in _FAMILY)
    if not os.path.lexists(path):
        kept = _keep_raw(path, directory, "absent")
    else:
        try:
            kept, content = _keep_image(spec, path, directory)
        except SourceBusy as error:
            raise TargetBusy(str(error), hint=f"{error.hint} Nothing live was touched.") from error
        except SourceUnreadable:
            (directory / _IMAGE).unlink(missing_ok=True)
            kept = _keep_raw(path, directory, "damaged")
    size = sum(entry.stat().st_size for entry in directory.iterdir())
    write_durably(directory / _RECORD, json.dumps(asdict(kept)).encode())
    return KeptCopy(kept.state, size, content)


def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Make the database what it was when `keep` saved it. May be repeated.

    Raises:
        TargetBusy: somebody holds it, nothing was changed.
        RestoreError: `directory` is no undo point, or the live path cannot be written.
    """
    kept = _record(directory)
    path = Path(real_path(spec))
    if kept.state == "present":
        return exchange(spec.name, path, directory / _IMAGE)
    refuse_holders(spec.name, path)
    if kept.raw:
        make_directory_durably(path.parent)
    elif not path.parent.is_dir():
        return []  # nothing was there, and nothing is
    with held(path.parent) as parent:
        _put_raw(kept, directory, path, parent)
    return []


def _put_raw(kept: _Kept, directory: Path, path: Path, parent: int) -> None:
    fresh = {}
    for suffix in kept.raw:  # all copied before the first live file is touched
        fresh[suffix] = path.with_name(temporary_name(path.name + suffix))
        copy_durably(directory / f"{_RAW}{suffix}", fresh[suffix])
    for suffix in ("-shm", "-wal", "-journal", ""):
        if suffix not in fresh or suffix:
            with suppress(FileNotFoundError):
                os.unlink(f"{path.name}{suffix}", dir_fd=parent)
                os.fsync(parent)
    for suffix in ("", *_SIDES):
        if suffix in fresh:
            os.replace(
                fresh[suffix].name, f"{path.name}{suffix}", src_dir_fd=parent, dst_dir_fd=parent
            )
            os.fsync(parent)


def _keep_image(spec: SourceSpec, path: Path, directory: Path) -> tuple[_Kept, str]:
    """Copy a consistent image; return also the digest of its content, taken on the way."""
    image = directory / _IMAGE
    with readable() as reader, snapshot(spec.name, path, directory) as seen:
        with new_image(spec.name, image) as write_at:
            content = reader.read(seen.connection, write_at)
        status = seen.live.status
    give_attributes(image, status)  # for the case that the live file has to be made anew
    return _Kept("present", str(path)), content


@contextmanager
def new_image(name: str, image: Path) -> Iterator[WriteAt]:
    """Provide a writer into the new file `image`, which is not made durable.

    Raises:
        SourceError: no space is left for it.
    """
    descriptor = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        yield lambda offset, data: _write_at(descriptor, offset, data)
    except OSError as error:
        raise SourceError(
            f"source {name!r}: {image}: {error.strerror or error}",
            hint="Free some space there, then try again. Nothing live was touched.",
        ) from error
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += page_cache.write(descriptor, rest[done:], offset + done)


def _keep_raw(path: Path, directory: Path, state: Literal["damaged", "absent"]) -> _Kept:
    """Copy the files as they are: the journal first, as a later one belongs to a later database."""
    found = []
    for suffix in (*_SIDES, ""):
        if os.path.isfile(f"{path}{suffix}"):
            copy_durably(Path(f"{path}{suffix}"), directory / f"{_RAW}{suffix}")
            found.append(suffix)
    fsync_directory(directory)
    return _Kept(state, str(path), tuple(found))


def _record(directory: Path) -> _Kept:
    try:
        value = json.loads((directory / _RECORD).read_bytes())
        kept = _Kept(**{**value, "raw": tuple(value["raw"])})
        newer = kept.version > _VERSION
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RestoreError(
            f"{directory} is not a complete undo point: {error}",
            hint="Restore from a backup instead. Nothing live was touched.",
        ) from error
    if newer:
        raise RestoreError(
            f"{directory} was written by a newer mcp-backup (version {kept.version})",
            hint="Upgrade mcp-backup. Nothing live was touched.",
        )
    return kept
