"""The catalog: what backups there are, read from the repository and from nowhere else.

Snapshots are immutable, so what was read once stays true as long as the snapshot is listed.
Snapshots that other programs made in the same repository are listed too, as not ours; they have
no manifest and can be staged to scratch, never put back over live data.
"""

import logging
import re
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice

from msgspec import Struct

from mcp_backup.errors import (
    IntegrityError,
    ObjectMissing,
    UnknownBackup,
    UnsupportedFormat,
    UsageError,
)
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, SnapshotId, is_id
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.tree import Node
from mcp_backup.manifest import PATH as MANIFEST_PATH
from mcp_backup.manifest import Manifest, SourceRecord, decode
from mcp_backup.outline import Outline, SourceOutline
from mcp_backup.repository.objects import object_name
from mcp_backup.repository.repository import Repository
from mcp_backup.snapshot_cache import Remembered, SnapshotCache
from mcp_backup.sources.source import Component, SourceSpec
from mcp_backup.verbs import BackupEntry, BackupPage

logger = logging.getLogger(__name__)

TAG = "mcp-backup"
_BACKUP_ID = re.compile(r"backup_\d{8}_\d{6}(_\d+)?")
_SHORT_ID = re.compile(r"[0-9a-f]{8,63}")
_MAX_LIMIT = 200
_LOOK_BACK = 1000  # backups searched for a source's newest copy
_LARGEST_MANIFEST = 64 << 20  # bytes; a file that is evidence takes some hundred
_FEW = 100  # new backups that are put in their places faster than all are sorted
_MANIFESTS = 50  # kept in memory; of the others their outlines are


class Backup(Struct, frozen=True):
    """One snapshot, found."""

    id: SnapshotId
    snapshot: Snapshot

    @property
    def ours(self) -> bool:
        """Whether mcp-backup made it."""
        return TAG in self.snapshot.tags

    @property
    def backup_id(self) -> str:
        """Return its backup id; for other programs' snapshots, the short snapshot id."""
        for tag in self.snapshot.tags:
            if _BACKUP_ID.fullmatch(tag):
                return tag
        return self.id.hex()[:8]

    @property
    def backup_type(self) -> str:
        """Return what kind of backup it is."""
        tags = [tag for tag in self.snapshot.tags if tag not in {TAG, self.backup_id}]
        return tags[0] if self.ours and tags else "other"


class Filter(Struct, frozen=True):
    """Which backups are wanted; empty fields want all."""

    source: str = ""
    backup_type: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, backup: Backup) -> bool:
        """Judge by what the snapshot alone tells."""
        if self.backup_type and backup.backup_type != self.backup_type:
            return False
        if self.since and backup.snapshot.time < self.since:
            return False
        return not (self.until and backup.snapshot.time > self.until)


class Catalog:
    """The backups in one repository."""

    def __init__(self, repository: Repository, cache: SnapshotCache | None = None) -> None:
        """Read from `repository`, and from `cache` what it has of it."""
        self.repository = repository
        self._cache, self._recalled = cache, cache is None
        self._manifests: dict[SnapshotId, Manifest] = {}
        self._outlines: dict[SnapshotId, Outline] = {}
        self._found: Mapping[SnapshotId, Snapshot] = {}
        self._ordered: list[Backup] = []  # oldest first
        self._sorted: tuple[Backup, ...] = ()  # newest first
        self._ids: set[str] = set()
        self.damaged: tuple[str, ...] = ()  # the snapshot files that could not be read, by name

    async def backups(self) -> tuple[Backup, ...]:
        """Return all snapshots that can be read, newest first; `damaged` names the others.

        One damaged file must not keep the other backups from being restored.
        """
        if not self._recalled:
            await self._recall()
        damaged: dict[SnapshotId, IntegrityError] = {}
        found = await self.repository.snapshots(damaged)
        self.damaged = tuple(sorted(f"snapshots/{identity.hex()}" for identity in damaged))
        if found is not self._found:
            self._take(found)
        return self._sorted

    def _take(self, found: Mapping[SnapshotId, Snapshot]) -> None:
        """Have the backups be these; of thousands, few are others than the last time."""
        gone = self._found.keys() - found.keys()
        new = [Backup(identity, found[identity]) for identity in found.keys() - self._found.keys()]
        self._found = found
        if gone:
            self._ordered = [backup for backup in self._ordered if backup.id not in gone]
            self._ids = {backup.backup_id for backup in self._ordered}
        if len(new) > _FEW:
            self._ordered = sorted([*self._ordered, *new], key=_age)
        else:
            for backup in new:
                insort(self._ordered, backup, key=_age)
        self._ids.update(backup.backup_id for backup in new)
        if gone or new:
            self._sorted = tuple(reversed(self._ordered))

    async def next_backup_id(self, started: datetime) -> str:
        """Return `backup_YYYYMMDD_HHMMSS` in UTC, unique by `_2`, `_3`, ... among those there."""
        await self.backups()
        first = f"backup_{started:%Y%m%d_%H%M%S}"
        candidate, number = first, 1
        while candidate in self._ids:
            number += 1
            candidate = f"{first}_{number}"
        return candidate

    async def find(self, wanted: str) -> Backup:
        """Return the backup that answers to a backup id, a snapshot id, its short form, or latest.

        `latest` is the newest of ours.

        Raises:
            UnknownBackup: none does.
            UsageError: a short id that several snapshots share.
        """
        backups = await self.backups()
        matches: Iterable[Backup] = ()
        if wanted == "latest":
            self._refuse_guessing()
            matches = [backup for backup in backups if backup.ours][:1]
        elif _BACKUP_ID.fullmatch(wanted):
            matches = [backup for backup in backups if backup.backup_id == wanted]
        elif is_id(wanted) or _SHORT_ID.fullmatch(wanted):
            matches = [backup for backup in backups if backup.id.hex().startswith(wanted)]
        found = list(matches)
        if not found:
            raise UnknownBackup(wanted, len(backups))
        if len(found) > 1:
            raise UsageError(
                f"{wanted!r} is the beginning of {len(found)} snapshot ids",
                hint="Use more digits, or the backup id.",
            )
        return found[0]

    def _refuse_guessing(self) -> None:
        """Refuse to say which backup is the latest while one cannot be read: it may be that."""
        if self.damaged:
            raise IntegrityError(
                f"{', '.join(self.damaged)} cannot be read, and may be the latest backup",
                hint="Name a backup by its id; run `mcp-backup check` to see what is damaged. "
                "Nothing was changed.",
            )

    @property
    def listed(self) -> tuple[Backup, ...]:
        """What `backups` returned the last time."""
        return self._sorted

    async def keep(self) -> None:
        """Keep what was read of snapshots for the next process, where that is worth it."""
        if self._cache is None or not self._cache.lacks(list(self._found)):
            return
        sizes = await self.repository.store.objects("snapshots/")
        await self._cache.save(
            {
                backup.id: Remembered(size, backup.snapshot, self._outlines.get(backup.id))
                for backup in self._sorted
                if (size := sizes.get(object_name("snapshots", backup.id))) is not None
                and (backup.id in self._outlines or not backup.ours)
            }
        )

    async def _recall(self) -> None:
        """Take for read what is in the cache, of snapshots whose files are as they were."""
        self._recalled = True
        assert self._cache is not None
        found = await self._cache.load()
        if not found:
            return
        sizes = await self.repository.store.objects("snapshots/")
        known = {
            identity: each
            for identity, each in found.items()
            if sizes.get(object_name("snapshots", identity)) == each.size
        }
        self.repository.remember({identity: each.snapshot for identity, each in known.items()})
        self._outlines |= {i: each.outline for i, each in known.items() if each.outline}

    async def root(self, backup: Backup) -> dict[str, Node]:
        """Return the top of a backup's tree, by name."""
        return {node.name: node for node in await self.repository.load_tree(backup.snapshot.tree)}

    async def manifest(self, backup: Backup) -> Manifest | None:
        """Return a backup's manifest; None for snapshots that other programs made."""
        if not backup.ours:
            return None
        if backup.id not in self._manifests:
            node = (await self.root(backup)).get(MANIFEST_PATH)
            if node is None or node.content is None:
                raise IntegrityError(
                    f"backup {backup.backup_id} has no {MANIFEST_PATH}",
                    hint="Restore it to scratch, or with `restic restore`, and use another backup.",
                )
            parts = await self._parts(backup, node.content)
            while len(self._manifests) >= _MANIFESTS:
                del self._manifests[next(iter(self._manifests))]
            self._manifests[backup.id] = decode(b"".join(parts))
        return self._manifests[backup.id]

    async def _parts(self, backup: Backup, content: Sequence[BlobId]) -> list[bytes]:
        parts, size = [], 0
        for identity in content:  # the same blob may be in it a million times
            parts.append(await self.repository.load_blob(BlobKind.DATA, identity))
            size += len(parts[-1])
            if size > _LARGEST_MANIFEST:
                raise IntegrityError(
                    f"the manifest of backup {backup.backup_id} has more than {_LARGEST_MANIFEST} "
                    "bytes",
                    hint="mcp-backup did not write it. Use another backup.",
                )
        return parts

    async def outline(self, backup: Backup) -> Outline | None:
        """Return a backup's outline; None where its manifest cannot be read, or is not ours.

        One backup that is damaged, or a newer version's, hides none of the others.
        """
        if not backup.ours:
            return None
        if backup.id not in self._outlines:
            manifest = await self.legible(backup)
            if manifest is None:
                return None
            self._outlines[backup.id] = Outline.of(manifest)
        return self._outlines[backup.id]

    async def outlines(self, backups: Iterable[Backup]) -> list[Outline | None]:
        """Return each backup's outline."""
        known = self._outlines
        return [known.get(backup.id) or await self.outline(backup) for backup in backups]

    async def newest(self, spec: SourceSpec, hostname: str) -> tuple[Backup, SourceRecord] | None:
        """Return the newest copy of a source: of this host, or else of any."""
        backups = await self.backups()
        ours = (backup for backup in backups if backup.snapshot.hostname == hostname)
        others = (backup for backup in backups if backup.snapshot.hostname != hostname)
        for backup in islice(chain(ours, others), _LOOK_BACK):
            outline = await self.outline(backup)
            if outline and any(_is_copy(source, spec) for source in outline.sources):
                manifest = await self.legible(backup)
                record = manifest.source(spec.name, spec.component) if manifest else None
                if record:
                    return backup, record
        return None

    async def legible(self, backup: Backup) -> Manifest | None:
        """Return a backup's manifest; None also where it cannot be read."""
        try:
            return await self.manifest(backup)
        except (IntegrityError, ObjectMissing, UnsupportedFormat) as error:
            logger.warning("backup unreadable: backup=%s: %s", backup.backup_id, error)
            return None

    async def tree(self, backup: Backup, path: str) -> Node:
        """Return the node at a path in a backup, e.g. "databases/notes".

        Raises:
            IntegrityError: the manifest names it, and the snapshot does not have it.
        """
        nodes, (*outer, last) = await self.root(backup), path.split("/")
        for part in outer:
            subtree = _directory(backup, nodes, part, path).subtree
            assert subtree is not None
            nodes = {node.name: node for node in await self.repository.load_tree(subtree)}
        return _directory(backup, nodes, last, path)

    async def page(self, wanted: Filter, limit: int, cursor: str) -> BackupPage:
        """Return one page, newest first; `cursor` is the previous page's `next_cursor`."""
        if not 1 <= limit <= _MAX_LIMIT:
            raise UsageError(f"limit {limit} is not between 1 and {_MAX_LIMIT}", hint="Page on.")
        backups: Sequence[Backup] = await self.backups()
        if wanted != Filter():
            backups = [backup for backup in backups if wanted.wants(backup)]
        if wanted.source:
            backups = [backup for backup in backups if await self._holds(backup, wanted.source)]
        start = _after(backups, cursor) if cursor else 0
        chosen = backups[start : start + limit]
        more = len(backups) > start + limit
        return BackupPage(
            entries=tuple([_entry(backup, await self.outline(backup)) for backup in chosen]),
            next_cursor=chosen[-1].id.hex()[:16] if more else "",
            total=len(backups),
            damaged=self.damaged,
        )

    async def _holds(self, backup: Backup, source: str) -> bool:
        outline = await self.outline(backup)
        return outline is not None and any(each.name == source for each in outline.sources)


def _directory(backup: Backup, nodes: Mapping[str, Node], name: str, path: str) -> Node:
    node = nodes.get(name)
    if node is None or node.subtree is None:
        raise IntegrityError(
            f"backup {backup.backup_id} has no directory {path!r}",
            hint="Run `mcp-backup check`, and use another backup.",
        )
    return node


def _age(backup: Backup) -> tuple[datetime, SnapshotId]:
    return backup.snapshot.time, backup.id


def _entry(backup: Backup, outline: Outline | None) -> BackupEntry:
    sources = outline.sources if outline else ()
    summary = backup.snapshot.summary or {}
    return BackupEntry(
        backup_id=backup.backup_id,
        snapshot_id=backup.id.hex(),
        backup_type=backup.backup_type,
        status=outline.status if outline else "unreadable" if backup.ours else "other",
        time=backup.snapshot.time,
        note=outline.note if outline else "",
        sources=tuple(source.name for source in sources if source.outcome != "failed"),
        failed=tuple(source.name for source in sources if source.outcome == "failed"),
        total_bytes=_count(summary.get("total_bytes_processed")),
        added_bytes=_count(summary.get("data_added_packed")),
        hostname=backup.snapshot.hostname,
        ours=backup.ours,
        databases=tuple(
            source.name
            for source in sources
            if source.outcome != "failed" and source.component == Component.DATABASES
        ),
        suspect=tuple(source.name for source in sources if source.suspect),
        verified=backup.snapshot.time if outline and _proven(outline) else None,
    )


def _count(value: object) -> int:
    """Read a number of another program's summary; what is none counts as 0."""
    return value if type(value) is int and 0 <= value < 1 << 63 else 0


def _proven(outline: Outline) -> bool:
    return all(source.proven for source in outline.sources if source.outcome != "failed")


def _is_copy(source: SourceOutline, spec: SourceSpec) -> bool:
    wanted = (spec.component, spec.name, spec.kind)
    return source.outcome != "failed" and source[:3] == wanted


def _after(backups: Sequence[Backup], cursor: str) -> int:
    for number, backup in enumerate(backups):
        if backup.id.hex().startswith(cursor):
            return number + 1
    raise UsageError(
        f"cursor {cursor!r:.40} is not from this list",
        hint="Begin again without a cursor; the backup it stood at may have been dropped.",
    )
