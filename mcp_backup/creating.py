"""Creating: back up now, from the captures of the sources to the snapshot.

What it takes is loaded when a backup is asked for, as with every verb that moves data: who only
looks does not wait for it.
"""

import fcntl
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import anyio
from msgspec.structs import replace

from mcp_backup import __version__
from mcp_backup.backup.archiver import Archiver, Known, new_snapshot
from mcp_backup.backup.segments import SegmentCache
from mcp_backup.catalog import Backup
from mcp_backup.errors import ObjectMissing, SourceError, UnknownSource, UsageError
from mcp_backup.manifest import Failure, Manifest, SourceRecord
from mcp_backup.outcomes import backup_report, refuse_if_all_failed
from mcp_backup.progress import Listener
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.objects import object_name
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.repository.writer import writing
from mcp_backup.restore.workspace import workspace
from mcp_backup.sources.capture import CAPTURING, database_bytes, fingerprints
from mcp_backup.sources.source import Component, SourceSpec
from mcp_backup.tasks import loaded, task_group
from mcp_backup.verbs import BackupReport, BackupType, CreateRequest, Level
from mcp_backup.workers import forking

if TYPE_CHECKING:
    from mcp_backup.engine import Engine
    from mcp_backup.restore.verify import Verifier

logger = logging.getLogger(__name__)

_Found = tuple[Backup, Known]  # where it was found
_COMPONENTS = {
    BackupType.FULL: frozenset(Component),
    BackupType.INCREMENTAL: frozenset(Component),
    BackupType.DATABASE: frozenset({Component.DATABASES}),
    BackupType.CONFIG: frozenset({Component.CONFIG}),
    BackupType.WORKFLOW: frozenset({Component.WORKFLOWS}),
}
_OURS = frozenset({"digest", "size", "integrity", "staging-rejected"})  # codes that blame storage
_LARGE = 64 << 20  # bytes of databases for which worker processes are started ahead
_POLL_SECONDS = 0.01  # a commit takes some hundredths of a second


async def create(engine: "Engine", request: CreateRequest, listener: Listener) -> BackupReport:
    """Back up now; see `Engine.create`."""
    specs = _chosen(engine, request)
    started, began = engine.place.now(), monotonic()
    marks, known = [""] * len(specs), list[_Found | None]()

    trusted = request.backup_type is not BackupType.FULL
    load_index = partial(engine.index_cache.load, trusted=trusted)
    segments = SegmentCache(engine.state / "segments", engine.repository, whole=not trusted)

    async def know() -> None:
        known[:] = [await _known(engine, spec) for spec in specs]

    async def prepare() -> None:
        async with task_group() as tasks:
            tasks.start_soon(load_index)
            tasks.start_soon(know)
            if request.backup_type is BackupType.INCREMENTAL:
                with suppress(SourceError):  # which the capture meets again, and tells
                    marks[:] = await fingerprints(specs)
            elif not segments.any_kept and await database_bytes(specs) >= _LARGE:
                pool.begin()  # else it is not known yet whether much has to be sealed

    async with (
        forking(SEALING, *CAPTURING),
        workspace(engine.settings.scratch) as scratch,
        sealing_pool(engine.repository.key) as pool,
        locked(engine.repository, wait=PATIENCE_SECONDS, meanwhile=prepare),
        writing(engine.repository, pool) as writer,
    ):
        archiver = Archiver(engine.repository, writer, pool, scratch, segments)
        for spec, found, mark in zip(specs, known, marks, strict=True):
            there = await _still_there(engine, spec, found)
            await archiver.add(spec, listener, there, mark=mark)
        records = archiver.archive.records
        refuse_if_all_failed(records)
        await archiver.flush()  # so that a manifest shares no pack with what it is about
        if request.verify:
            verifying = await loaded("mcp_backup.restore.verify")
            verifier = verifying.Verifier(engine.repository, pool, scratch / "verify", listener)
            records = [await _read_back(archiver, r, verifier) for r in records]
            refuse_if_all_failed(records)
        backup = await _commit(engine, archiver, request, records, started)
    await engine.index_cache.keep()
    return backup_report(request, backup, records, writer.totals, began)


def _chosen(engine: "Engine", request: CreateRequest) -> list[SourceSpec]:
    """Return the sources a request means, in the order of the settings."""
    wanted = _COMPONENTS[request.backup_type]
    specs = [spec for spec in engine.settings.sources() if spec.component in wanted]
    if request.databases:
        names = {spec.name for spec in specs if spec.component is Component.DATABASES}
        for name in request.databases:
            if name not in names:
                raise UnknownSource(name, sorted(names))
        specs = [
            spec
            for spec in specs
            if spec.component is not Component.DATABASES or spec.name in request.databases
        ]
    if not specs:
        raise UsageError(
            f"nothing is configured that a backup of type {request.backup_type} takes",
            hint="Add [[databases]] or [[config]] to the settings, or choose another type.",
        )
    return specs


async def _known(engine: "Engine", spec: SourceSpec) -> _Found | None:
    """Return the source as the newest backup that has it knows it."""
    found = await engine.catalog.newest(spec, engine.hostname)
    if found is None:
        return None
    backup, record = found
    ours = backup.snapshot.hostname == engine.hostname
    return backup, Known(record, await engine.catalog.tree(backup, record.tree), ours)


async def _still_there(engine: "Engine", spec: SourceSpec, found: _Found | None) -> Known | None:
    """Return what was found before the lock was ours, unless that backup was dropped meanwhile."""
    if found is None:
        return None
    try:
        await engine.repository.store.size(object_name("snapshots", found[0].id))
    except ObjectMissing:
        found = await _known(engine, spec)
    return found[1] if found else None


async def _read_back(
    archiver: Archiver, record: SourceRecord, verifier: "Verifier"
) -> SourceRecord:
    """Read back what was stored of a source; a copy that differs is a failed source."""
    if record.outcome != "stored":
        return record
    found = await verifier.verify(record, archiver.archive.trees[record.tree], Level.RESTORE)
    wrong = [finding for finding in found if finding.code in _OURS]
    if wrong:
        logger.error("read-back failed: source=%s finding=%s", record.name, wrong[0].message)
        return replace(
            record,
            outcome="failed",
            tree="",
            evidence=None,
            failure=Failure(
                "read-back",
                f"what was stored is not what was read: {wrong[0].message}",
                "Run `mcp-backup check --level data`; the disk or memory may be failing.",
            ),
        )
    return replace(record, verified=True, findings=tuple(found))


async def _commit(
    engine: "Engine",
    archiver: Archiver,
    request: CreateRequest,
    records: Sequence[SourceRecord],
    started: datetime,
) -> Backup:
    """Name the backup and commit it; two at once on one machine never share a name."""
    async with _alone(engine.state / "commit.lock"):
        failed = any(record.outcome == "failed" for record in records)
        manifest = Manifest(
            backup_id=await engine.catalog.next_backup_id(started),
            backup_type=request.backup_type,
            status="partial" if failed else "completed",
            note=request.note,
            started=started.isoformat(),
            program=f"mcp-backup {__version__}",
            sources=tuple(records),
        )
        snapshot = new_snapshot(manifest, started, engine.place.hostname, engine.place.username)
        identity = await archiver.commit(manifest, snapshot)
    logger.info("snapshot added: backup=%s snapshot=%s", manifest.backup_id, identity.hex()[:8])
    return Backup(identity, snapshot)


@asynccontextmanager
async def _alone(file: Path) -> AsyncIterator[None]:
    """Hold the kernel's lock on a file for the block; it ends with its process.

    No thread waits for it, since whoever has it may need that thread to go on.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(descriptor):  # noqa: ASYNC110 - another process may have it
            await anyio.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
