"""Whole documents of every kind, to begin from."""

import json
from datetime import UTC, datetime

from mcp_backup.format.crypto import MasterKey
from mcp_backup.format.key import CHEAP, encode_key_file
from mcp_backup.manifest import Failure, Manifest, SourceRecord
from mcp_backup.recovery_page import Kit, html_page, text_page
from mcp_backup.sources.source import Component, Evidence, FileEvidence, Finding

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_ID = "ab" * 32
_KIT = Kit("/srv/backups", _ID, "a password", _ID, _NOW, "here")
_RECORD = SourceRecord(
    name="notes",
    component=Component.DATABASES,
    kind="sqlite",
    outcome="stored",
    original="/srv/notes.db",
    tree="databases/notes",
    chunk_size=16384,
    read=1,
    added=1,
    duration_seconds=0.5,
    evidence=Evidence("sqlite", (FileEvidence("notes.db", "/srv/n", 1, "d"),), {}, ("n",), "f"),
    failure=Failure("code", "message", "hint"),
    verified=True,
    findings=(Finding("code", "subject", "message"),),
)
_NODE = {
    "name": "notes.db",
    "type": "file",
    "mode": 420,
    "mtime": "2026-11-24T12:00:00.5+01:00",
    "uid": 1,
    "gid": 1,
    "size": 7,
    "content": [_ID],
}
_SPEC = {"name": "n", "component": "databases", "kind": "sqlite", "path": "/n", "options": {}}
_BLOB = {"id": _ID, "type": "data", "offset": 0, "length": 99, "uncompressed_length": 128}
_TARGET = {
    "source": "n",
    "component": "databases",
    "kind": "sqlite",
    "original": "/n",
    "live_state": "present",
    "live_bytes": 1,
    "backup_bytes": 1,
    "action": "replace",
    "holders": [],
}


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


SEEDS: dict[str, list[bytes]] = {
    "config": [_json({"version": 2, "id": _ID, "chunker_polynomial": "3da3358b4dc173"})],
    "header": [b"\x02" + bytes(8) + bytes(32), b"\x00" + bytes(4) + bytes(32)],
    "index": [_json({"supersedes": [_ID], "packs": [{"id": _ID, "blobs": [_BLOB]}]})],
    "journal": [
        _json(
            {
                "event": "begun",
                "at": _NOW.isoformat(),
                "restore_id": "r",
                "purpose": "restore",
                "plan_id": "p",
                "backup_id": "b",
                "snapshot_id": "s",
                "started": _NOW.isoformat(),
                "targets": [{"spec": _SPEC, "size": 1}],
                "undoes": "",
            }
        )
        + b"\n"
        + _json({"event": "new", "target": "databases/n", "signature": {"": "absent"}})
        + b"\n"
        + _json({"event": "ended", "outcome": "restored", "message": ""})
    ],
    "key": [
        encode_key_file(
            MasterKey(bytes(32), bytes(16), bytes(16)),
            "password",
            created=_NOW,
            username="u",
            hostname="h",
            work=CHEAP,
            random=lambda count: b"r" * count,
        )
    ],
    "kit": [text_page(_KIT).encode(), html_page(_KIT).encode()],
    "kit-record": [_json({"version": 1, "made": _NOW.isoformat(), "key_id": _ID, "location": "/"})],
    "lock": [_json({"time": _NOW.isoformat(), "exclusive": True, "hostname": "h", "pid": 1})],
    "manifest": [
        Manifest(
            "backup_20261124_120000", "full", "completed", "n", _NOW.isoformat(), "p", (_RECORD,)
        ).encode()
    ],
    "plan": [
        _json(
            {
                "plan": {
                    "plan_id": "plan_0123456789ab",
                    "created": _NOW.isoformat(),
                    "expires": "2026-11-25T00:00:00+00:00",
                    "targets": [_TARGET],
                    "warnings": ["w"],
                },
                "seen": {"databases/n": {"kind": "sqlite", "path": "/n", "state": "present"}},
            }
        )
    ],
    "sealed": [bytes(64)],
    "settings": [
        b'[repository]\nlocation = "./b"\n[[databases]]\nname = "n"\npath = "n.db"\n'
        b'kind = "sqlite"\n[schedule]\ndaily = "02:00"\n[retention]\ndaily = 3\n'
    ],
    "snapshot": [
        _json(
            {
                "time": "2026-11-24T12:00:00Z",
                "tree": _ID,
                "paths": ["/n"],
                "tags": ["mcp-backup"],
                "summary": {"data_added": 1},
            }
        )
    ],
    "tree": [_json({"nodes": [_NODE, _NODE | {"name": "\\x80", "type": "dir", "subtree": _ID}]})],
    "unpacked": [b"{}", b"\x02(\xb5/\xfd\x04\x00\x11\x00\x00{}\x99\xe9\xd8Q"],
}
