"""Snapshots: one tree at one time, and whose. The commit point of every backup.

Source: restic design, "Snapshots"; restic internal/restic/snapshot.go.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from mcp_backup.errors import IntegrityError
from mcp_backup.format.document import Document
from mcp_backup.format.gotext import json_value
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.format.times import format_datetime, parse_datetime


class Snapshot(Struct, frozen=True, kw_only=True):
    """One snapshot. `time` is aware and keeps its zone.

    `paths` are absolute; with `hostname` they are what restic groups snapshots by. `parent` may
    be a snapshot that is gone. `original` is the first id of a snapshot that was changed since.
    `summary` holds restic's counts under restic's names, and is None where there are none.
    """

    time: datetime
    tree: BlobId
    paths: tuple[str, ...]
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    parent: SnapshotId | None = None
    original: SnapshotId | None = None
    program_version: str = ""
    summary: Mapping[str, Any] | None = None


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the snapshot's JSON."""
    members = {
        "time": format_datetime(snapshot.time),
        "parent": snapshot.parent.hex() if snapshot.parent else None,
        "tree": snapshot.tree.hex(),
        "paths": snapshot.paths,
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "excludes": snapshot.excludes,
        "tags": snapshot.tags,
        "original": snapshot.original.hex() if snapshot.original else None,
        "program_version": snapshot.program_version,
        "summary": snapshot.summary,
    }
    kept = {name: value for name, value in members.items() if value or name == "paths"}
    return json_value(kept).encode()


def decode_snapshot(data: bytes) -> Snapshot:
    """Parse a snapshot's JSON.

    Raises:
        IntegrityError: not a snapshot, or one without a tree.
    """
    document = Document.parse(data, "snapshot")
    parent, original = document.identity_or_none("parent"), document.identity_or_none("original")
    summary = document.members.get("summary")
    if summary is not None and not isinstance(summary, dict):
        raise IntegrityError("snapshot: summary is not a JSON object")
    return Snapshot(
        time=parse_datetime(document.text("time")),
        tree=BlobId(document.identity("tree")),
        paths=document.texts("paths"),
        hostname=document.text("hostname"),
        username=document.text("username"),
        uid=document.integer("uid"),
        gid=document.integer("gid"),
        excludes=document.texts("excludes"),
        tags=document.texts("tags"),
        parent=SnapshotId(parent) if parent else None,
        original=SnapshotId(original) if original else None,
        program_version=document.text("program_version"),
        summary=summary,
    )
