"""What was read of snapshots, kept for the next process: a file that changes nothing but speed.

It is only believed of snapshots that the repository lists now, and whose files there have the
size they had. It is sealed with a key that follows from the repository's own, and that nothing
else is sealed with: who cannot open the repository can neither read nor forge it, and another
repository's file, a damaged one or none at all only mean that the snapshots are read again. What
is on the disk is looked at by `check`, which reads every snapshot.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import shake_256
from pathlib import Path
from typing import Any

from anyio import to_thread
from msgspec import Struct

from mcp_backup.durable import write_durably
from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.crypto import MasterKey, Sealer
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.format.key import generate_master_key
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.unpacked import decode_unpacked, encode_unpacked
from mcp_backup.outline import Outline

logger = logging.getLogger(__name__)

_VERSION = 1
_LABEL = b"mcp-backup: cache of snapshots"
_FEW = 20  # snapshots that are read as fast as the file is
_NEW = 32  # that it lacks at most, or a tenth


class Remembered(Struct, frozen=True):
    """One snapshot: the size of its file in bytes, what is in it, and its outline if it is ours."""

    size: int
    snapshot: Snapshot
    outline: Outline | None


class SnapshotCache:
    """The file at `path`, for one repository. Its methods never fail."""

    def __init__(self, path: Path, repository_id: str, key: MasterKey) -> None:
        """Nothing is read or written yet."""
        self._path = path
        self._repository_id = repository_id
        secret = key.encrypt + key.mac_k + key.mac_r
        self._key = generate_master_key(shake_256(_LABEL + secret).digest)
        self._kept: frozenset[SnapshotId] = frozenset()

    async def load(self) -> Mapping[SnapshotId, Remembered]:
        """Return what the file has; nothing where there is none, or none to be believed."""
        found = await to_thread.run_sync(self._load)
        self._kept = frozenset(found)
        return found

    def lacks(self, snapshots: Sequence[SnapshotId]) -> bool:
        """Whether so many of these are not in the file that it is worth writing again."""
        missing = sum(identity not in self._kept for identity in snapshots)
        return len(snapshots) >= _FEW and missing >= min(_NEW, len(snapshots) // 10)

    async def save(self, found: Mapping[SnapshotId, Remembered]) -> None:
        """Make the file say this, whole or not at all. A cancel waits for it."""
        await to_thread.run_sync(self._save, found)
        self._kept = frozenset(found)  # or it would be tried again and again on a full disk

    def _load(self) -> Mapping[SnapshotId, Remembered]:
        try:
            data = self._path.read_bytes()
            document = json.loads(decode_unpacked(Sealer(self._key).unseal(data)))
        except (OSError, IntegrityError, UnsupportedFormat, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                logger.info("cache of snapshots not used: %s", error)
            return {}
        if (document["version"], document["repository"]) != (_VERSION, self._repository_id):
            return {}
        return {
            SnapshotId(bytes.fromhex(identity)): Remembered(
                size, _snapshot(members), None if plain is None else Outline.from_plain(plain)
            )
            for identity, size, members, plain in document["snapshots"]
        }

    def _save(self, found: Mapping[SnapshotId, Remembered]) -> None:
        document = {
            "version": _VERSION,
            "repository": self._repository_id,
            "snapshots": [
                (
                    identity.hex(),
                    each.size,
                    _members(each.snapshot),
                    each.outline.plain() if each.outline else None,
                )
                for identity, each in found.items()
            ],
        }
        plain = encode_unpacked(json.dumps(document).encode())
        with suppress(OSError):
            write_durably(self._path, Sealer(self._key).seal(plain))


def _members(snapshot: Snapshot) -> tuple[Any, ...]:
    return (
        snapshot.time.isoformat(),
        snapshot.tree.hex(),
        snapshot.paths,
        snapshot.hostname,
        snapshot.username,
        snapshot.uid,
        snapshot.gid,
        snapshot.excludes,
        snapshot.tags,
        snapshot.parent.hex() if snapshot.parent else None,
        snapshot.original.hex() if snapshot.original else None,
        snapshot.program_version,
        snapshot.summary,
    )


def _snapshot(members: Sequence[Any]) -> Snapshot:
    time, tree, paths, hostname, username, uid, gid = members[:7]
    excludes, tags, parent, original, program_version, summary = members[7:]
    return Snapshot(
        time=datetime.fromisoformat(time),
        tree=BlobId(bytes.fromhex(tree)),
        paths=tuple(paths),
        hostname=hostname,
        username=username,
        uid=uid,
        gid=gid,
        excludes=tuple(excludes),
        tags=tuple(tags),
        parent=SnapshotId(bytes.fromhex(parent)) if parent else None,
        original=SnapshotId(bytes.fromhex(original)) if original else None,
        program_version=program_version,
        summary=summary,
    )
