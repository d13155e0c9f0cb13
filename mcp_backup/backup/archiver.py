"""The archiver, the spine of a backup: capture → chunks → blobs → tree → snapshot. Start here.

The order is the whole guarantee. Sources are captured one after the other; each either closes
without error or leaves nothing that the snapshot refers to. Then packs and index are made
durable (`flush`), then, if asked for, what was stored is read back by the engine, then the
manifest and the trees above the sources are saved, and last of all the snapshot: the commit
point. A failure, cancel or crash before it leaves only packs that nothing refers to.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic

from anyio import to_thread
from blake3 import blake3
from msgspec import Struct, field
from msgspec.structs import replace

from mcp_backup.backup.cutting import cut_of, observed, told
from mcp_backup.backup.handouts import clear, handed_out, handout_of
from mcp_backup.backup.reading import Reading
from mcp_backup.backup.segments import SegmentCache
from mcp_backup.backup.trees import Directory, keep_times, save_directory
from mcp_backup.churn import Changed, Cut
from mcp_backup.errors import SourceError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.tree import Node, dir_node, file_node
from mcp_backup.manifest import PATH as MANIFEST_PATH
from mcp_backup.manifest import Failure, Manifest, SourceRecord
from mcp_backup.progress import Listener
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.repository import Repository
from mcp_backup.repository.writer import Writer
from mcp_backup.sources.capture import captured
from mcp_backup.sources.source import Component, Evidence, SourceSpec
from mcp_backup.suspicion import losses
from mcp_backup.tasks import task_group


class Known(Struct, frozen=True):
    """A source as the newest backup that has it knows it: its record, and its tree there.

    `ours`: this machine made it. Another's source of the same name may be another one.
    """

    record: SourceRecord
    tree: Node
    ours: bool = True


class Archive(Struct):
    """What has been captured so far: one record per source, and their trees by path."""

    records: list[SourceRecord] = field(default_factory=list)
    trees: dict[str, Node] = field(default_factory=dict)


class Archiver:
    """One backup being made. The caller holds the lock, and calls in the order of the docstring."""

    def __init__(
        self,
        repository: Repository,
        writer: Writer,
        pool: SealingPool,
        scratch: Path,
        segments: SegmentCache,
    ) -> None:
        """Write with `writer`; `scratch` takes copies of what cannot be streamed."""
        self._repository, self._writer, self._pool = repository, writer, pool
        self._scratch, self._segments = scratch, segments
        self.archive = Archive()

    async def add(
        self,
        spec: SourceSpec,
        listener: Listener,
        known: Known | None = None,
        *,
        mark: str = "",
    ) -> SourceRecord:
        """Capture one source; a `SourceError` becomes its record, anything else is raised.

        With `mark`, its fingerprint now, a source is not read if that is the one of `known`: its
        tree is taken over, once every blob of it was found in the repository's index. `known`
        also keeps the chunk size stable.
        """
        began, sealed = monotonic(), self._writer.totals.sealed
        try:
            if known and await self._unchanged(spec, known, mark):
                record = replace(known.record, outcome="unchanged", read=0, added=0)
                self.archive.trees[record.tree] = known.tree
            else:
                record = await self._capture(spec, known, listener)
        except SourceError as error:
            record = _failed(spec, error)
        record = replace(
            record,
            added=self._writer.totals.sealed - sealed,
            duration_seconds=round(monotonic() - began, 3),
            suspect=losses(record, known.record) if known and known.ours else (),
        )
        self.archive.records.append(record)
        return record

    async def flush(self) -> None:
        """Make all that was captured durable and listed in the index."""
        await self._writer.flush()

    async def commit(self, manifest: Manifest, snapshot: Snapshot) -> SnapshotId:
        """Save manifest, trees and, last, the snapshot, whose `tree` and `paths` are filled in."""
        root = Directory()
        for record in manifest.sources:
            if record.tree:
                root.add(record.tree, self.archive.trees[record.tree])
        document = manifest.encode()
        blob = await self._writer.save(BlobKind.DATA, document)
        stamp = int(snapshot.time.timestamp()) * 10**9
        node = file_node(MANIFEST_PATH, (blob,), len(document), mode=0o600, mtime_ns=stamp)
        root.add(MANIFEST_PATH, node)
        tree = await save_directory(root, self._writer)
        await self._writer.flush()
        index = await self._repository.load_index()
        for node in self.archive.trees.values():
            assert node.subtree is not None
            index.found_whole(node.subtree)
        summary = self._summary(manifest, len(document))
        return await self._repository.add_snapshot(replace(snapshot, tree=tree, summary=summary))

    def _summary(self, manifest: Manifest, document_size: int) -> dict[str, int]:
        """Count as restic counts: every file below the root, the manifest too."""
        files = [
            file for record in manifest.sources if record.evidence for file in record.evidence.files
        ]
        totals = self._writer.totals
        return {
            "data_added": totals.plain,
            "data_added_packed": totals.stored,
            "total_files_processed": len(files) + 1,
            "total_bytes_processed": sum(file.size for file in files) + document_size,
        }

    async def _unchanged(self, spec: SourceSpec, known: Known, mark: str) -> bool:
        evidence = known.record.evidence
        if not mark or evidence is None or bound(spec, mark) != evidence.fingerprint:
            return False
        return await self._complete(known.tree)

    async def _complete(self, node: Node) -> bool:
        """Tell whether the index has every blob below a node."""
        index = await self._repository.load_index()
        if node.type != "dir":
            return all((BlobKind.DATA, blob) in index for blob in node.content or ())
        if node.subtree is None or (BlobKind.TREE, node.subtree) not in index:
            return False
        if not index.is_whole(node.subtree):
            for child in await self._repository.load_tree(node.subtree):
                if not await self._complete(child):
                    return False
            index.found_whole(node.subtree)
        return True

    async def _capture(
        self, spec: SourceSpec, known: Known | None, listener: Listener
    ) -> SourceRecord:
        tree = f"{spec.component}/{spec.name}"
        cut = cut_of(known.record) if known else Cut(0, 0)
        reading = Reading(self._writer, self._pool, self._segments, tree, cut.next)
        evidence, before = await self._read(spec, known, reading, listener)
        notes, churn = evidence.notes + ((told(cut),) if cut.pays else ()), tuple[Changed, ...]()
        if known and before:
            keep_times(reading.root, before)
            churn = observed(known.record, before, reading.root, reading.chunk_size)
        subtree = await save_directory(reading.root, self._writer)
        self.archive.trees[tree] = dir_node(
            spec.name, subtree, mode=0o700, mtime_ns=reading.root.latest()
        )
        return SourceRecord(
            name=spec.name,
            component=spec.component,
            kind=spec.kind,
            outcome="stored",
            original=spec.path,
            tree=tree,
            chunk_size=reading.chunk_size,
            read=sum(file.size for file in evidence.files),
            added=0,
            duration_seconds=0.0,
            evidence=replace(evidence, fingerprint=bound(spec, evidence.fingerprint), notes=notes),
            failure=None,
            churn=churn,
        )

    async def _read(
        self, spec: SourceSpec, known: Known | None, reading: Reading, listener: Listener
    ) -> tuple[Evidence, Sequence[Node]]:
        """Consume a capture; return its evidence, and what the last backup stored of a database."""
        scratch = self._scratch / f"capture-{len(self.archive.records)}"  # the last may be littered
        await to_thread.run_sync(_make, scratch)
        copies, read, before = scratch.with_name(f"{scratch.name}-handed-out"), spec, list[Node]()

        async def load_before() -> None:
            before.extend(await self._before(spec, known))

        try:
            if handout := handout_of(self._repository, spec):
                read = replace(spec, path=str(await handed_out(handout, spec, copies)))
            async with (
                captured(read, self._pool.arena, scratch) as capture,
                task_group() as meanwhile,
            ):
                meanwhile.start_soon(load_before)
                evidence = await reading.run(capture, spec, listener)
        finally:
            reading.release()
            await clear(copies)
        if read is not spec:  # a copy's fingerprint says nothing of what is live
            files = tuple(replace(file, original=spec.path) for file in evidence.files)
            evidence = replace(evidence, files=files, fingerprint="")
        return evidence, before

    async def _before(self, spec: SourceSpec, known: Known | None) -> Sequence[Node]:
        """Return what the last backup stored of a database; nothing of other sources."""
        if known is None or spec.component is not Component.DATABASES:
            return ()
        assert known.tree.subtree is not None
        return await self._repository.load_tree(known.tree.subtree)


def bound(spec: SourceSpec, mark: str) -> str:
    """Bind a fingerprint to what the settings ask for: other options make another image."""
    if not mark:
        return ""
    asked = json.dumps([spec.kind, spec.path, dict(spec.options)], sort_keys=True)
    return f"{mark}:{blake3(asked.encode()).hexdigest()[:16]}"


def _make(scratch: Path) -> None:
    try:
        scratch.mkdir(mode=0o700)
    except OSError as error:
        raise SourceError(
            f"no directory for temporary copies in {scratch.parent}: {error.strerror or error}",
            hint="Free some space there, then try again. It was not backed up.",
        ) from error


def _failed(spec: SourceSpec, error: SourceError) -> SourceRecord:
    return SourceRecord(
        name=spec.name,
        component=spec.component,
        kind=spec.kind,
        outcome="failed",
        original=spec.path,
        tree="",
        chunk_size=0,
        read=0,
        added=0,
        duration_seconds=0.0,
        evidence=None,
        failure=Failure(error.code, str(error), error.hint),
    )


def new_snapshot(manifest: Manifest, time: datetime, hostname: str, username: str) -> Snapshot:
    """Return the snapshot of a backup, still without a tree."""
    specs = [record.original for record in manifest.sources if record.tree]
    return Snapshot(
        time=time,
        tree=BlobId(bytes(32)),
        paths=tuple(sorted(set(specs))),
        hostname=hostname,
        username=username,
        tags=("mcp-backup", manifest.backup_id, manifest.backup_type),
        program_version=manifest.program,
    )
