"""The catalog: what backups there are, read from the repository and from nowhere else.

Snapshots are immutable, so what was read once stays true as long as the snapshot is listed.
Snapshots that other programs made in the same repository are listed too, as not ours; they have
no manifest and can be staged to scratch, never put back over live data.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mcp_backup.errors import (
    IntegrityError,
    ObjectMissing,
    UnknownBackup,
    UnsupportedFormat,
    UsageError,
)
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import SnapshotId, is_id
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.tree import Node
from mcp_backup.manifest import PATH as MANIFEST_PATH
from mcp_backup.manifest import Manifest, decode
from mcp_backup.repository.repository import Repository
from mcp_backup.verbs import BackupEntry, BackupPage

logger = logging.getLogger(__name__)

TAG = "mcp-backup"
_BACKUP_ID = re.compile(r"backup_\d{8}_\d{6}(_\d+)?")
_SHORT_ID = re.compile(r"[0-9a-f]{8,63}")
_MAX_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Backup:
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


@dataclass(frozen=True, slots=True)
class Filter:
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

    def __init__(self, repository: Repository) -> None:
        """Read from `repository`."""
        self._repository = repository
        self._manifests: dict[SnapshotId, Manifest | None] = {}
        self._found: dict[SnapshotId, Snapshot] = {}
        self._sorted: list[Backup] = []
        self.damaged: tuple[str, ...] = ()  # the snapshot files that could not be read, by name

    async def backups(self) -> list[Backup]:
        """Return all snapshots that can be read, newest first; `damaged` names the others.

        One damaged file must not keep the other backups from being restored.
        """
        damaged: dict[SnapshotId, IntegrityError] = {}
        found = await self._repository.snapshots(damaged)
        self.damaged = tuple(sorted(f"snapshots/{identity.hex()}" for identity in damaged))
        if found.keys() != self._found.keys():
            backups = [Backup(identity, snapshot) for identity, snapshot in found.items()]
            backups.sort(key=lambda backup: (backup.snapshot.time, backup.id), reverse=True)
            self._found, self._sorted = found, backups
        return list(self._sorted)

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

    async def root(self, backup: Backup) -> dict[str, Node]:
        """Return the top of a backup's tree, by name."""
        return {node.name: node for node in await self._repository.load_tree(backup.snapshot.tree)}

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
            parts = [await self._repository.load_blob(BlobKind.DATA, b) for b in node.content]
            self._manifests[backup.id] = decode(b"".join(parts))
        return self._manifests[backup.id]

    async def legible(self, backup: Backup) -> Manifest | None:
        """Return a backup's manifest; None also where it cannot be read.

        One backup that is damaged, or a newer version's, hides none of the others.
        """
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
        nodes, node = await self.root(backup), None
        for part in path.split("/"):
            node = nodes.get(part)
            if node is None or node.subtree is None:
                raise IntegrityError(
                    f"backup {backup.backup_id} has no directory {path!r}",
                    hint="Run `mcp-backup check`, and use another backup.",
                )
            nodes = {n.name: n for n in await self._repository.load_tree(node.subtree)}
        assert node is not None
        return node

    async def page(self, wanted: Filter, limit: int, cursor: str) -> BackupPage:
        """Return one page, newest first; `cursor` is the previous page's `next_cursor`."""
        if not 1 <= limit <= _MAX_LIMIT:
            raise UsageError(f"limit {limit} is not between 1 and {_MAX_LIMIT}", hint="Page on.")
        backups = [backup for backup in await self.backups() if wanted.wants(backup)]
        if wanted.source:
            backups = [backup for backup in backups if await self._holds(backup, wanted.source)]
        start = _after(backups, cursor) if cursor else 0
        chosen = backups[start : start + limit]
        more = len(backups) > start + limit
        return BackupPage(
            entries=tuple([await self._entry(backup) for backup in chosen]),
            next_cursor=chosen[-1].id.hex()[:16] if more else "",
            total=len(backups),
            damaged=self.damaged,
        )

    async def _holds(self, backup: Backup, source: str) -> bool:
        manifest = await self.legible(backup)
        return manifest is not None and any(record.name == source for record in manifest.sources)

    async def _entry(self, backup: Backup) -> BackupEntry:
        manifest = await self.legible(backup)
        records = manifest.sources if manifest else ()
        summary = backup.snapshot.summary or {}
        return BackupEntry(
            backup_id=backup.backup_id,
            snapshot_id=backup.id.hex(),
            backup_type=backup.backup_type,
            status=manifest.status if manifest else "unreadable" if backup.ours else "other",
            time=backup.snapshot.time,
            note=manifest.note if manifest else "",
            sources=tuple(record.name for record in records if record.outcome != "failed"),
            failed=tuple(record.name for record in records if record.outcome == "failed"),
            total_bytes=int(summary.get("total_bytes_processed", 0)),
            added_bytes=int(summary.get("data_added_packed", 0)),
            hostname=backup.snapshot.hostname,
            ours=backup.ours,
        )


def _after(backups: list[Backup], cursor: str) -> int:
    for number, backup in enumerate(backups):
        if backup.id.hex().startswith(cursor):
            return number + 1
    raise UsageError(
        f"cursor {cursor!r:.40} is not from this list",
        hint="Begin again without a cursor; the backup it stood at may have been dropped.",
    )


def next_backup_id(started: datetime, taken: Iterable[str]) -> str:
    """Return `backup_YYYYMMDD_HHMMSS` in UTC, unique among `taken` by `_2`, `_3`, ...."""
    first = f"backup_{started:%Y%m%d_%H%M%S}"
    known = set(taken)
    candidate, number = first, 1
    while candidate in known:
        number += 1
        candidate = f"{first}_{number}"
    return candidate
