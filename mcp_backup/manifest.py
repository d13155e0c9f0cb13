"""The manifest: what one backup is made of, stored as `/manifest.json` in its snapshot.

One outcome per source asked for, and the evidence of each that was captured. It is written
before the snapshot and never changed, so it holds nothing that is learned later. Readers ignore
members they do not know and refuse a `version` above theirs.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.sources.source import Component, Evidence, FileEvidence, Finding

VERSION = 1
PATH = "manifest.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source was not captured: an error's `code`, message and hint."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One source in one backup.

    `outcome`: "stored" (read and stored), "unchanged" (sound change detection says that the
    previous backup's copy is still exact, and it is part of this snapshot), or "failed".
    `tree` is where it lies in the snapshot, e.g. "databases/notes"; "" when it failed.
    `chunk_size` is the fixed cut of its image in bytes, 0 where there is none. `read` and `added`
    are bytes read from the source, and bytes added to the repository for it (stored size).
    `verified` tells that the copy was read back from the store and examined before the snapshot
    was written; `findings` are what that examination found wrong with the source itself (the
    bytes were proven equal by then), so a restore that finds the same brings back what was there.
    `suspect` is what the source lost since the backup before; see `suspicion`.
    """

    name: str
    component: Component
    kind: str
    outcome: Literal["stored", "unchanged", "failed"]
    original: str
    tree: str
    chunk_size: int
    read: int
    added: int
    duration_seconds: float
    evidence: Evidence | None
    failure: Failure | None
    verified: bool = False
    findings: tuple[Finding, ...] = ()
    suspect: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup. Times are RFC 3339 text in UTC."""

    backup_id: str
    backup_type: str
    status: Literal["completed", "partial"]
    note: str
    started: str
    program: str
    sources: tuple[SourceRecord, ...]
    version: int = VERSION

    def source(self, name: str, component: Component) -> SourceRecord | None:
        """Return the record of one source, if the backup has one."""
        for record in self.sources:
            if record.name == name and record.component == component:
                return record
        return None

    def encode(self) -> bytes:
        """Return the manifest's bytes: indented JSON in UTF-8, for people too.

        A byte of a name that is not UTF-8 is written as JSON's escape of its surrogate.
        """
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode(
            errors="backslashreplace"
        )


def decode(data: bytes) -> Manifest:
    """Parse a manifest.

    Raises:
        UnsupportedFormat: written by a version newer than this one.
        IntegrityError: not a manifest.
    """
    try:
        document = json.loads(data.decode(errors="surrogateescape"))
        if document["version"] > VERSION:
            raise UnsupportedFormat(
                f"manifest version {document['version']}, and this program reads up to {VERSION}",
                hint="Upgrade mcp-backup, or restore with `restic restore`. Nothing was changed.",
            )
        return Manifest(
            sources=tuple(_record(item) for item in document["sources"]),
            **{key: document[key] for key in _PLAIN},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"manifest.json is not a manifest: {error}") from error


_PLAIN = ("backup_id", "backup_type", "status", "note", "started", "program", "version")
_RECORD = (
    "name",
    "kind",
    "outcome",
    "original",
    "tree",
    "chunk_size",
    "read",
    "added",
    "duration_seconds",
    "verified",
)


def _record(item: Mapping[str, Any]) -> SourceRecord:
    evidence, failure = item["evidence"], item["failure"]
    return SourceRecord(
        component=Component(item["component"]),
        evidence=_evidence(evidence) if evidence is not None else None,
        failure=Failure(failure["code"], failure["message"], failure["hint"]) if failure else None,
        findings=_findings(item["findings"]),
        suspect=_findings(item.get("suspect", ())),
        **{key: item[key] for key in _RECORD},
    )


def _findings(items: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    return tuple(Finding(item["code"], item["subject"], item["message"]) for item in items)


def _evidence(item: Mapping[str, Any]) -> Evidence:
    return Evidence(
        engine=item["engine"],
        files=tuple(
            FileEvidence(file["path"], file["original"], file["size"], file["digest"])
            for file in item["files"]
        ),
        facts=dict(item["facts"]),
        notes=tuple(item["notes"]),
        fingerprint=item["fingerprint"],
    )
