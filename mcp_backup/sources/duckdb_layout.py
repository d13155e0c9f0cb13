"""Which file is which: the databases of a source live, staged, and in an undo point.

    staged       what the backup holds: NAME.duckdb and its log, or a tree of such
    undo point   kept.json, and files/0/database, files/0/database.wal, … by number

`kept.json` is written last, so that a directory without it is no undo point.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from mcp_backup.durable import write_durably
from mcp_backup.errors import RestoreError, StagingRejected
from mcp_backup.record import asdict
from mcp_backup.sources.confined import elsewhere, real_path
from mcp_backup.sources.duckdb_file import Shard, below
from mcp_backup.sources.source import SourceSpec

RECORD = "kept.json"
_VERSION = 1
_STRANGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class KeptShard(Struct, frozen=True):
    """One database of an undo point. `state` says whether DuckDB could read it."""

    key: str
    state: Literal["present", "damaged"]
    number: int


class Kept(Struct, frozen=True):
    """The record: what was live, and the keys of what was not and would be created."""

    shards: tuple[KeptShard, ...]
    created: tuple[str, ...]
    version: int = _VERSION


def live_shard(spec: SourceSpec, key: str) -> Shard:
    """Return where the database `key` of a source is live, or will be.

    Raises:
        RestoreError: a link leads elsewhere since the restore was planned.
    """
    root = Path(real_path(spec))
    path = Path(os.path.realpath(root / key)) if key else root
    if spec.real and not path.is_relative_to(root):
        raise elsewhere(root / key, f"leads to {path}")
    return Shard(key, path)


def staged_shards(spec: SourceSpec, staged: Path) -> list[Shard]:
    """Return the databases in the directory `staged`, by their keys in the source.

    Raises:
        StagingRejected: there is none, or there are several for one file.
    """
    found = sorted(below(staged), key=lambda shard: shard.key) if staged.is_dir() else []
    if not found:
        raise StagingRejected(
            f"{staged} holds no DuckDB database", hint="Nothing live was touched."
        )
    if not _is_one_file(Path(spec.path), found):
        return found
    if len(found) > 1:
        raise StagingRejected(
            f"the backup holds {len(found)} databases, and {spec.path} is one file",
            hint="Name a directory as the `path` of the source, or restore with target=scratch. "
            "Nothing live was touched.",
        )
    return [Shard("", found[0].path)]


def kept_path(directory: Path, kept: KeptShard) -> Path:
    """Return where an undo point has one database."""
    return directory / "files" / str(kept.number) / "database"


def kept_shards(directory: Path) -> list[Shard] | None:
    """Return the databases of an undo point; None when `directory` is none."""
    if not (directory / RECORD).exists():
        return None
    return [Shard(kept.key, kept_path(directory, kept)) for kept in read_kept(directory).shards]


def write_kept(directory: Path, kept: Kept) -> None:
    """Make `directory` an undo point."""
    write_durably(directory / RECORD, json.dumps(asdict(kept)).encode())


def read_kept(directory: Path) -> Kept:
    """Return what is in an undo point.

    Raises:
        RestoreError: it is none, or a newer version wrote it.
    """
    try:
        value = json.loads((directory / RECORD).read_bytes())
        shards = tuple(KeptShard(**item) for item in value.pop("shards"))
        kept = Kept(shards, tuple(value.pop("created")), **value)
        newer = kept.version > _VERSION
    except (OSError, *_STRANGE) as error:
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


def _is_one_file(path: Path, found: Sequence[Shard]) -> bool:
    """Tell whether the source is one file: what is live says so, else its name and the backup."""
    if os.path.lexists(path):
        return not path.is_dir()
    only = found[0].key if len(found) == 1 else ""
    return bool(only) and "/" not in only and (only == path.name or path.suffix != "")
