"""Export: take a backup out of the repository, in formats that need nothing of ours to read.

`sql` is one SQLite database as portable text, proven by reloading it and comparing; what SQL
cannot carry is refused by name. `tar` is everything in the backup as one `.tar.zst`. Both are
made from a snapshot that is staged and examined first, never from live data.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from anyio import CancelScope, to_thread

from mcp_backup.catalog import Backup
from mcp_backup.durable import fsync_directory
from mcp_backup.engine import Engine
from mcp_backup.errors import NotExportable, StoreDenied, UnknownSource, UsageError
from mcp_backup.format.zstd import stream_compressor
from mcp_backup.manifest import SourceRecord
from mcp_backup.progress import Listener, nobody
from mcp_backup.repository.locks import locked
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.restore.examining import Means, refuse, stage_source
from mcp_backup.restore.signatures import single_file
from mcp_backup.restore.workspace import workspace
from mcp_backup.sources.capture import CAPTURING, export_sql
from mcp_backup.sources.export_tar import write_tar
from mcp_backup.sources.source import Component
from mcp_backup.verbs_upkeep import ExportReport
from mcp_backup.workers import forking

_TAR_LEVEL = 3  # zstd's own default: an archive is written once and kept


async def export_backup(  # noqa: PLR0913 - one parameter per choice
    engine: Engine,
    backup_id: str,
    source: str,
    out: Path,
    listener: Listener = nobody,
    *,
    wanted: Literal["sql", "tar"],
) -> ExportReport:
    """Export a backup, or one source of it, to the new file `out`.

    The file appears whole or not at all. Needs scratch space for the sources exported.

    Raises:
        UsageError: `out` exists, or `source` is missing where one must be named.
        NotExportable: SQL cannot carry what the database holds; it is named.
        StagingRejected, IntegrityError: the backup is not what was captured.
    """
    _refuse_existing(out)
    backup = await engine.catalog.find(backup_id)
    records = await _records(engine, backup, source, wanted)
    async with _staged(engine, backup, records, listener) as directory, _whole(out) as partial:
        if wanted == "sql":
            (record,) = records
            image = await to_thread.run_sync(single_file, directory / record.tree)
            proof = await export_sql(image, partial)
        else:
            compressor = stream_compressor(_TAR_LEVEL)
            count = await to_thread.run_sync(write_tar, directory, partial, compressor)
            proof = f"{count} entries, each file equal to the digest taken at its capture"
    size = (await to_thread.run_sync(out.stat)).st_size
    return ExportReport(backup.backup_id, str(out), size, proof)


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise UsageError(f"{out} exists", hint="Name a new file. Nothing was written.")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a directory", hint="Make it first.")


async def _records(
    engine: Engine, backup: Backup, source: str, wanted: Literal["sql", "tar"]
) -> list[SourceRecord]:
    """Return what is to be exported."""
    manifest = await engine.catalog.manifest(backup)
    if manifest is None:
        raise UsageError(
            f"snapshot {backup.backup_id} was made by another program",
            hint="Use that program, or `restic restore`, to take it out.",
        )
    records = [record for record in manifest.sources if record.outcome != "failed"]
    if wanted == "sql":
        records = [record for record in records if record.component is Component.DATABASES]
    names = [record.name for record in records]
    if source:
        records = [record for record in records if record.name == source]
        if not records:
            raise UnknownSource(source, names)
    if wanted == "sql" and len(records) != 1:
        raise UsageError(
            f"an SQL export is of one database, and this backup has {len(records)}",
            hint=f"Name one with --source: {', '.join(names) or 'there is none'}.",
        )
    for record in records:
        if wanted == "sql" and record.kind != "sqlite":
            raise NotExportable(f"{record.name} is of kind {record.kind}", hint="Export as tar.")
    return records


@asynccontextmanager
async def _staged(
    engine: Engine, backup: Backup, records: list[SourceRecord], listener: Listener
) -> AsyncIterator[Path]:
    """Provide the sources as files, laid out as in the snapshot, for the duration of the block."""
    async with workspace(engine.settings.scratch) as scratch:
        async with (
            forking(SEALING, *CAPTURING),
            locked(engine.repository),
            sealing_pool(engine.repository.key) as pool,
        ):
            means = Means(engine.repository, pool, listener)
            for record in records:
                place = scratch / record.tree
                refuse(record, await stage_source(means, backup.snapshot.tree, record, place))
        yield scratch


@asynccontextmanager
async def _whole(out: Path) -> AsyncIterator[Path]:
    """Provide a name to write to; make it `out` on success, remove it otherwise."""
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        yield partial
        await to_thread.run_sync(_publish, partial, out)
    except OSError as error:
        raise StoreDenied(
            f"writing {out}: {error.strerror or error}",
            hint="Make room or choose another place, and try again. Nothing was written.",
        ) from error
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(lambda: partial.unlink(missing_ok=True))


def _publish(partial: Path, out: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.link(partial, out)  # refuses to overwrite what appeared meanwhile
    fsync_directory(out.parent)
