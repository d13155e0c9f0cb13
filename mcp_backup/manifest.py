"""The manifest: what one backup is made of, stored as `/manifest.json` in its snapshot.

One outcome per source asked for, and the evidence of each that was captured. It is written
before the snapshot and never changed, so it holds nothing that is learned later. Readers ignore
members they do not know and refuse a `version` above theirs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Literal, NoReturn

from msgspec import Struct

from mcp_backup.churn import Changed
from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.record import asdict
from mcp_backup.sources.source import Component, Evidence, FileEvidence, Finding

VERSION = 1
PATH = "manifest.json"


class Failure(Struct, frozen=True):
    """Why a source was not captured: an error's `code`, message and hint."""

    code: str
    message: str
    hint: str


class SourceRecord(Struct, frozen=True):
    """One source in one backup.

    `outcome`: "stored" (read and stored), "unchanged" (sound change detection says that the
    previous backup's copy is still exact, and it is part of this snapshot), or "failed".
    `tree` is where it lies in the snapshot, e.g. "databases/notes"; "" when it failed.
    `chunk_size` is the fixed cut of its image in bytes, 0 where there is none. `read` and `added`
    are bytes read from the source, and bytes added to the repository for it (stored size).
    `verified` tells that the copy was read back from the store and examined before the snapshot
    was written; `findings` are what that examination found wrong with the source itself (the
    bytes were proven equal by then), so a restore that finds the same brings back what was there.
    `suspect` is what the source lost since the backup before; see `suspicion`. `churn` is how many
    chunks of its image changed, at the last backups of it that were cut alike; see `churn`.
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
    churn: tuple[Changed, ...] = ()


class Manifest(Struct, frozen=True):
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
    """Parse a manifest, trusting nothing in it: whoever has a key could have written it.

    Names are plain, so that no path made of them leads elsewhere; a source's tree is where its
    name says; every member has its type.

    Raises:
        UnsupportedFormat: written by a version newer than this one.
        IntegrityError: not a manifest.
    """
    try:
        text = data.decode(errors="surrogateescape")
        document = json.loads(text, parse_constant=_refuse)
        version = _count(document["version"])
        if version > VERSION:
            raise UnsupportedFormat(
                f"manifest version {version}, and this program reads up to {VERSION}",
                hint="Upgrade mcp-backup, or restore with `restic restore`. Nothing was changed.",
            )
        return Manifest(
            backup_id=_text(document["backup_id"]),
            backup_type=_text(document["backup_type"]),
            status=_one_of(document["status"], ("completed", "partial")),
            note=_text(document["note"]),
            started=_moment(document["started"]),
            program=_text(document["program"]),
            sources=tuple(_record(item) for item in _list(document["sources"])),
            version=version,
        )
    except RecursionError as error:
        raise IntegrityError("manifest.json is nested beyond reason", hint=_STRANGE) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"manifest.json is not a manifest: {error!s:.200}"
        raise IntegrityError(told, hint=_STRANGE) from error


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")  # what the settings allow
_MOST = 1 << 63
_CUTS = (0, *(1 << power for power in range(9, 21)))  # powers of two from 512 bytes to 1 MiB
_STRANGE = (
    "Damage, or something that mcp-backup did not write; `restic restore` may bring it back to a "
    "place of its own. Use another backup. Nothing was changed."
)


def _record(item: Mapping[str, Any]) -> SourceRecord:
    evidence, failure = item["evidence"], item["failure"]
    component, name, tree = Component(item["component"]), _text(item["name"]), _text(item["tree"])
    if not _NAME.fullmatch(name):
        raise ValueError(f"a source is named {name!r:.120}")
    if tree not in ("", f"{component}/{name}"):
        raise ValueError(f"the tree of {component}/{name} is {tree!r:.120}")
    return SourceRecord(
        name=name,
        component=component,
        kind=_text(item["kind"]),
        outcome=_one_of(item["outcome"], ("stored", "unchanged", "failed")),
        original=_text(item["original"]),
        tree=tree,
        chunk_size=_one_of(item["chunk_size"], _CUTS),
        read=_count(item["read"]),
        added=_count(item["added"]),
        duration_seconds=_seconds(item["duration_seconds"]),
        evidence=_evidence(evidence) if evidence is not None else None,
        failure=Failure(*_texts(failure, "code", "message", "hint")) if failure else None,
        verified=_truth(item["verified"]),
        findings=_findings(item["findings"]),
        suspect=_findings(item.get("suspect", [])),
        churn=tuple(Changed(*map(_count, _three(row))) for row in _list(item.get("churn", []))),
    )


def _findings(items: object) -> tuple[Finding, ...]:
    return tuple(Finding(*_texts(item, "code", "subject", "message")) for item in _list(items))


def _evidence(item: Mapping[str, Any]) -> Evidence:
    return Evidence(
        engine=_text(item["engine"]),
        files=tuple(_file(file) for file in _list(item["files"])),
        facts=dict(item["facts"]),
        notes=tuple(_text(note) for note in _list(item["notes"])),
        fingerprint=_text(item["fingerprint"]),
    )


def _file(item: Mapping[str, Any]) -> FileEvidence:
    path, original, digest = _texts(item, "path", "original", "digest")
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise ValueError(f"{path!r:.120} is not a plain relative path")
    return FileEvidence(path, original, _count(item["size"]), digest)


def _texts(item: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(_text(item[name]) for name in names)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not text")
    value.encode(errors="surrogateescape")  # which file names can be, and nothing else
    return value


def _list(value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return value


def _three(value: object) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) != len(Changed._fields):
        raise TypeError(f"{value!r:.60} are not three numbers")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise TypeError(f"{value!r:.60} is not a number of things")
    return value


def _seconds(value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if isfinite(number) and number >= 0:
        return number
    raise TypeError(f"{value!r:.60} is not a number of seconds")


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not true or false")
    return value


def _one_of(value: object, known: Sequence[Any]) -> Any:
    if isinstance(value, bool) or value not in known:
        raise ValueError(f"{value!r:.60} is none of {', '.join(map(str, known))}")
    return value


def _moment(value: object) -> str:
    if datetime.fromisoformat(_text(value)).tzinfo is None:
        raise ValueError(f"{value!r:.60} has no zone")
    return str(value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
