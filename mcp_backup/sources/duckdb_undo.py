"""Undo points of DuckDB sources: what was live before a restore, and how it comes back.

Every live database is kept byte for byte with all its side files, while it is locked as by its
writer. One that DuckDB can read comes back through the same exchange as a restore; one that it
cannot comes back byte for byte. What the restore created is removed. `duckdb_layout` draws it.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from mcp_backup.durable import (
    fsync_directory,
    make_directory_durably,
    temporary_name,
)
from mcp_backup.errors import SourceError
from mcp_backup.sources.confined import held
from mcp_backup.sources.duckdb_asking import Fault, ask, require
from mcp_backup.sources.duckdb_file import SIDES, Shard, beside, shards_of
from mcp_backup.sources.duckdb_layout import (
    Kept,
    KeptShard,
    kept_path,
    kept_shards,
    live_shard,
    read_kept,
    staged_shards,
    write_kept,
)
from mcp_backup.sources.duckdb_placement import (
    Exchange,
    alone,
    copy_descriptor,
    copy_durably,
    exchange,
    remove,
    remove_sides,
    rename,
    worded,
)
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.source import SourceSpec


def keep(spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
    """Save every live database of the source into the empty `directory`, durably.

    `staged` is what will go live, or the undo point that will.

    Raises:
        TargetBusy: somebody has one open.
        RestoreError: one may not be written, so that it could not be exchanged either.
    """
    require(spec.name)
    new = _coming(spec, staged)
    live = _live(spec, new)
    kept = []
    with alone(spec.name, live) as descriptors:
        for number, (shard, descriptor) in enumerate(zip(live, descriptors, strict=True)):
            _copy(shard, descriptor, kept_path(directory, KeptShard(shard.key, "present", number)))
    for number, shard in enumerate(live):
        one = KeptShard(shard.key, "present", number)
        try:
            ask(spec.name, "peek", kept_path(directory, one))
        except Fault as fault:
            if fault.why != "too-new":
                one = KeptShard(shard.key, "damaged", number)
        kept.append(one)
    there = {shard.key for shard in live}
    created = tuple(shard.key for shard in new if shard.key not in there)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    write_kept(directory, Kept(tuple(kept), created))
    if not kept:
        return KeptCopy("absent", size)
    return KeptCopy("damaged" if any(one.state == "damaged" for one in kept) else "present", size)


def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Make the source what it was when `keep` saved it. May be repeated.

    Raises:
        TargetBusy: somebody has one of its databases open; nothing was changed.
        RestoreError: `directory` is no undo point, or a live path cannot be written.
    """
    kept = read_kept(directory)
    created = [live_shard(spec, key) for key in kept.created]
    created = [shard for shard in created if os.path.lexists(shard.path)]
    raw = [one for one in kept.shards if one.state == "damaged"]
    broken = [shard for one in raw if os.path.lexists((shard := live_shard(spec, one.key)).path)]
    with alone(spec.name, [*created, *broken]):
        pass  # to be refused before anything is changed
    whole = [one for one in kept.shards if one.state == "present"]
    exchange(
        spec.name,
        [Exchange(kept_path(directory, one), live_shard(spec, one.key)) for one in whole],
    )
    for one in raw:
        _put_raw(spec.name, live_shard(spec, one.key), kept_path(directory, one))
    with alone(spec.name, created):
        for shard in created:
            with worded(spec.name, shard.path), held(shard.path.parent) as parent:
                remove_sides(shard.path, parent)
                remove(shard.path, parent)
    return []


def _coming(spec: SourceSpec, staged: Path) -> list[Shard]:
    """Return what will go live: from a staged copy, or from an earlier undo point."""
    if not staged.is_dir():
        return []
    kept = kept_shards(staged)
    return kept if kept is not None else staged_shards(spec, staged)


def _live(spec: SourceSpec, new: Sequence[Shard]) -> list[Shard]:
    """Return what is live: the databases, and whatever lies where one will be put."""
    places = [live_shard(spec, shard.key) for shard in new]
    found = {place.key: place for place in places if os.path.lexists(place.path)}
    if os.path.lexists(spec.path):
        with suppress(SourceError):  # a directory in which there are none any more
            found |= {shard.key: shard for shard in shards_of(spec.name, spec.path)}
    return [found[key] for key in sorted(found)]


def _copy(shard: Shard, descriptor: int, target: Path) -> None:
    """Copy a locked database through the descriptor that holds its lock, and its side files."""
    make_directory_durably(target.parent)
    for side in SIDES:
        path = beside(shard.path, side)
        if path.exists():
            copy_durably(path, beside(target, side), path.stat())
    copy_descriptor(descriptor, target, os.fstat(descriptor))
    fsync_directory(target.parent)


def _put_raw(name: str, live: Shard, image: Path) -> None:
    """Put files back byte for byte; all copied before the first live one is touched."""
    with ExitStack() as stack, worded(name, live.path):
        make_directory_durably(live.path.parent)
        fresh: dict[str, Path] = {}
        for side in ("", *SIDES):
            source = beside(image, side)
            if source.exists():
                fresh[side] = live.path.with_name(temporary_name(live.path.name + side))
                stack.callback(fresh[side].unlink, missing_ok=True)
                copy_durably(source, fresh[side], source.stat())
        stack.enter_context(alone(name, [live] if os.path.lexists(live.path) else []))
        parent = stack.enter_context(held(live.path.parent))
        remove_sides(live.path, parent)
        for side, path in fresh.items():
            rename(path, beside(live.path, side), parent)
