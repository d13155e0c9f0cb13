"""The engine: one method per verb, and the owner of repository, lock, clock and state.

Doors translate and call; everything they can ask for is here, and everything they can be told is
in `verbs.py`. An engine is opened for as long as its door lives and may be called concurrently;
each verb takes the repository's lock for itself.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Literal

from anyio import lowlevel, to_thread
from filelock import FileLock

from mcp_backup import __version__
from mcp_backup.backup.archiver import Archiver, Known, new_snapshot
from mcp_backup.backup.segments import SegmentCache
from mcp_backup.catalog import Backup, Catalog, Filter
from mcp_backup.errors import SourceError, UnknownSource, UsageError
from mcp_backup.history import History
from mcp_backup.index_cache import IndexCache
from mcp_backup.judging import Judging
from mcp_backup.manifest import Failure, Manifest, SourceRecord
from mcp_backup.outcomes import backup_report, bytes_of, refuse_if_all_failed
from mcp_backup.place import Place
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.proof.evidence import Ledger
from mcp_backup.recording import recorded, take_up
from mcp_backup.repository.check import check
from mcp_backup.repository.locks import locked
from mcp_backup.repository.pack_examining import in_pool
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.repository.repository import Repository
from mcp_backup.repository.writer import writing
from mcp_backup.restore.examining import Means
from mcp_backup.restore.plan import Origin
from mcp_backup.restore.restorer import Restorer
from mcp_backup.restore.rules import Rules
from mcp_backup.restore.scratch import workspace
from mcp_backup.restore.verify import Verifier
from mcp_backup.settings import Settings
from mcp_backup.snapshot_cache import SnapshotCache
from mcp_backup.sources.capture import database_bytes, fingerprints
from mcp_backup.sources.source import Component, SourceSpec
from mcp_backup.tasks import task_group
from mcp_backup.verbs import (
    BackupPage,
    BackupReport,
    BackupType,
    CheckReport,
    CreateRequest,
    Level,
    RestorePlan,
    RestoreReport,
    RestoreRequest,
    SourceFinding,
    UndoPoint,
    UndoReport,
    VerifyReport,
)

logger = logging.getLogger(__name__)

_COMPONENTS = {
    BackupType.FULL: frozenset(Component),
    BackupType.INCREMENTAL: frozenset(Component),
    BackupType.DATABASE: frozenset({Component.DATABASES}),
    BackupType.CONFIG: frozenset({Component.CONFIG}),
    BackupType.WORKFLOW: frozenset({Component.WORKFLOWS}),
}
_OURS = frozenset({"digest", "size", "integrity", "staging-rejected"})  # codes that blame storage
_LARGE = 64 << 20  # bytes of databases for which worker processes are started ahead
_LOCK_PATIENCE_SECONDS = 60.0  # how long to wait for another program's exclusive lock


class Engine:
    """The verbs. Made by `opened`."""

    def __init__(self, settings: Settings, repository: Repository, place: Place) -> None:
        """Work on an open repository; `place` says what time it is and where we are."""
        self.settings = settings
        self.repository = repository
        self.state = settings.state_dir / repository.config.id[:16]
        self._index_cache = IndexCache(self.state / "index.cache", repository)
        cache = SnapshotCache(self.state / "snapshots.cache", repository.config.id, repository.key)
        self.catalog = Catalog(repository, cache)
        self.history = History(self.state / "history.db", place.now)
        self.environ = place.environ
        ledger = Ledger(self.state, repository.key)
        self.judging = Judging(self.catalog, self.history, ledger, settings, place.now)
        self._place = place
        self._restorer = Restorer(
            Rules(
                state=self.state,
                scratch=settings.scratch,
                now=place.now,
                random=place.random,
                confirmation=settings.restore.confirmation,
                plan_minutes=settings.restore.plan_minutes,
                undo_keep=settings.restore.undo_keep,
            ),
            settings.sources(),
        )

    @property
    def confirmation(self) -> Literal["human", "elicit", "token"]:
        """How a restore over live data is confirmed, by the settings."""
        return self.settings.restore.confirmation

    @property
    def hostname(self) -> str:
        """The name under which this machine's backups are made."""
        return self._place.hostname

    def now(self) -> datetime:
        """Return the time, as this engine's surroundings tell it."""
        return self._place.now()

    @recorded("create")
    async def create(self, request: CreateRequest, listener: Listener = nobody) -> BackupReport:
        """Back up now. A cancel or crash leaves no snapshot, or the whole one.

        Raises:
            UsageError: nothing is configured that this asks for, or an unknown name.
            NothingBackedUp: every source failed; nothing was stored.
            StoreError, RepositoryError: the repository could not take it; nothing was stored.
        """
        specs = self._chosen(request)
        started, began = self._place.now(), monotonic()
        marks = [""] * len(specs)

        trusted = request.backup_type is not BackupType.FULL
        load_index = partial(self._index_cache.load, trusted=trusted)

        async def prepare() -> None:
            async with task_group() as tasks:
                tasks.start_soon(load_index)
                if request.backup_type is BackupType.INCREMENTAL:
                    with suppress(SourceError):  # which the capture meets again, and tells
                        marks[:] = await fingerprints(specs)
                elif await database_bytes(specs) >= _LARGE:
                    pool.begin()

        async with (
            workspace(self.settings.scratch) as scratch,
            sealing_pool(self.repository.key) as pool,
            locked(self.repository, wait=_LOCK_PATIENCE_SECONDS, meanwhile=prepare),
            writing(self.repository, pool) as writer,
        ):
            segments = SegmentCache(self.state / "segments", self.repository, whole=not trusted)
            archiver = Archiver(self.repository, writer, pool, scratch, segments)
            for spec, mark in zip(specs, marks, strict=True):
                known = await self._known(spec)
                await archiver.add(spec, listener, known, mark=mark)
            records = archiver.archive.records
            refuse_if_all_failed(records)
            await archiver.flush()  # so that a manifest shares no pack with what it is about
            if request.verify:
                verifier = Verifier(self.repository, pool, scratch / "verify", listener)
                records = [await self._read_back(archiver, r, verifier) for r in records]
                refuse_if_all_failed(records)
            backup = await self._commit(archiver, request, records, started)
        await self._index_cache.keep()
        return backup_report(request, backup, records, writer.totals, began)

    async def backups(  # noqa: PLR0913 - one parameter per condition
        self,
        *,
        limit: int = 20,
        cursor: str = "",
        source: str = "",
        backup_type: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> BackupPage:
        """List backups, newest first; empty conditions want all."""
        return await self.judging.page(Filter(source, backup_type, since, until), limit, cursor)

    @recorded("verify")
    async def verify(
        self,
        backup_id: str = "latest",
        level: Level = Level.DATA,
        listener: Listener = nobody,
    ) -> VerifyReport:
        """Verify one backup; see `restore.verify` for the levels.

        Raises:
            UnknownBackup: there is no such backup.
            UsageError: the snapshot was made by another program and has no evidence.
        """
        began = monotonic()
        async with locked(self.repository, wait=_LOCK_PATIENCE_SECONDS):
            backup = await self.catalog.find(backup_id)
            manifest = await self.catalog.manifest(backup)
            if manifest is None:
                raise UsageError(
                    f"snapshot {backup.backup_id} was made by another program, and holds no "
                    "evidence to verify against",
                    hint="Run `mcp-backup check --level data` to prove the whole repository.",
                )
            records = [record for record in manifest.sources if record.outcome != "failed"]
            findings: list[SourceFinding] = []
            async with (
                workspace(self.settings.scratch) as scratch,
                sealing_pool(self.repository.key) as pool,
            ):
                verifier = Verifier(self.repository, pool, scratch / "verify", listener)
                for record in records:
                    tree = await self.catalog.tree(backup, record.tree)
                    found = await verifier.verify(record, tree, level)
                    findings += [SourceFinding.of(record.name, finding) for finding in found]
        return VerifyReport(
            backup_id=backup.backup_id,
            snapshot_id=backup.id.hex(),
            level=level,
            findings=tuple(findings),
            sources=tuple(record.name for record in records),
            read_bytes=bytes_of(records) if level is not Level.STRUCTURE else 0,
            duration_seconds=round(monotonic() - began, 3),
        )

    @recorded("check")
    async def check(
        self, level: Level = Level.STRUCTURE, listener: Listener = nobody
    ) -> CheckReport:
        """Check the whole repository: what restic's own check checks, and as strictly."""
        async with (
            sealing_pool(self.repository.key) as pool,
            locked(
                self.repository,
                wait=_LOCK_PATIENCE_SECONDS,
                meanwhile=lowlevel.checkpoint if level is Level.STRUCTURE else pool.start,
            ),
        ):
            packs = in_pool(self.repository, pool)
            return await check(self.repository, level, listener, examine=packs)

    async def plan_restore(self, request: RestoreRequest) -> RestorePlan:
        """Work out what a restore would do, and keep that as a plan. Touches nothing live."""
        backup = await self.catalog.find(request.backup_id)
        return await self._restorer.plan(self.repository, await self._origin(backup), request)

    async def plan(self, plan_id: str) -> RestorePlan:
        """Return a plan made before, with whether it has been approved."""
        return await self._restorer.shown(plan_id)

    @recorded("approve")
    async def approve(self, plan_id: str, by: str) -> RestorePlan:
        """Approve a plan in a person's name. Only doors that a person holds call this."""
        plan = await self._restorer.approve(plan_id, by)
        logger.info("plan approved: plan=%s by=%s", plan_id, by)
        return plan

    @recorded("restore")
    async def restore(
        self, plan_id: str, listener: Listener = nobody, *, consent: bool = False
    ) -> RestoreReport:
        """Carry out a plan; see `Restorer.restore`. `consent`: a person approved it just now."""
        plan = await self._restorer.shown(plan_id)
        if plan.undoes:
            raise UsageError(
                f"plan {plan_id} is for the undo of {plan.undoes}",
                hint=f"Call undo_restore with restore_id={plan.undoes}. Nothing was touched.",
            )
        async with (
            locked(self.repository, wait=_LOCK_PATIENCE_SECONDS),
            sealing_pool(self.repository.key) as pool,
        ):
            origin = await self._origin(await self.catalog.find(plan.snapshot_id))
            await self.repository.load_index(refresh=True)
            means = Means(self.repository, pool, listener)
            report = await self._restorer.restore(plan_id, origin, means, consent=consent)
        logger.info("restored: restore=%s backup=%s", report.restore_id, report.backup_id)
        return report

    @recorded("undo")
    async def undo(
        self, restore_id: str, listener: Listener = nobody, *, consent: bool = False
    ) -> UndoReport:
        """Put back what was live before a restore. Needs approval, as a restore does."""
        await listener(Progress("swap", restore_id, 0, 1))
        report = await self._restorer.undo(restore_id, consent=consent)
        logger.info("undone: restore=%s", restore_id)
        return report

    async def restores(self) -> list[UndoPoint]:
        """Return what can be undone, newest first."""
        return await self._restorer.undo_points()

    async def recover(self) -> None:
        """Finish or put right what a crash interrupted; rebuild a history that is new or lost."""
        for found in await self._restorer.recover():
            logger.warning("recovered: %s", found)
        await take_up(self.history, self.catalog, self._place.hostname)

    async def _origin(self, backup: Backup) -> Origin:
        return Origin(
            backup_id=backup.backup_id,
            snapshot_id=backup.id,
            tree=backup.snapshot.tree,
            time=backup.snapshot.time,
            manifest=await self.catalog.manifest(backup),
        )

    def _chosen(self, request: CreateRequest) -> list[SourceSpec]:
        """Return the sources a request means, in the order of the settings."""
        wanted = _COMPONENTS[request.backup_type]
        specs = [spec for spec in self.settings.sources() if spec.component in wanted]
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

    async def _known(self, spec: SourceSpec) -> Known | None:
        """Return the source as the newest backup that has it knows it."""
        found = await self.catalog.newest(spec, self.hostname)
        if found is None:
            return None
        backup, record = found
        ours = backup.snapshot.hostname == self.hostname
        return Known(record, await self.catalog.tree(backup, record.tree), ours)

    async def _read_back(
        self, archiver: Archiver, record: SourceRecord, verifier: Verifier
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
        self,
        archiver: Archiver,
        request: CreateRequest,
        records: Sequence[SourceRecord],
        started: datetime,
    ) -> Backup:
        """Name the backup and commit it; two at once on one machine never share a name."""
        lock = FileLock(self.state / "commit.lock", thread_local=False, mode=0o600)
        await to_thread.run_sync(lock.acquire)
        try:
            failed = any(record.outcome == "failed" for record in records)
            manifest = Manifest(
                backup_id=await self.catalog.next_backup_id(started),
                backup_type=request.backup_type,
                status="partial" if failed else "completed",
                note=request.note,
                started=started.isoformat(),
                program=f"mcp-backup {__version__}",
                sources=tuple(records),
            )
            snapshot = new_snapshot(manifest, started, self._place.hostname, self._place.username)
            identity = await archiver.commit(manifest, snapshot)
        finally:
            lock.release()
        logger.info("snapshot added: backup=%s snapshot=%s", manifest.backup_id, identity.hex()[:8])
        return Backup(identity, snapshot)
