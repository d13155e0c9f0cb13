"""The evidence: what drills found, in a file where no record can be changed unnoticed.

One line of JSON per drill. Each record carries the digest of the one before it, and a seal that
only somebody with the repository's key can make:

    digest = SHA-256 of the record without digest and seal, as canonical JSON
    seal   = HMAC-SHA-256 of the digest, with a key derived from the repository's

Records at the end that were cut off are not missed by the chain: the history has the number of
each drill's record, and `Evidence.against` compares.
"""

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from anyio import to_thread
from filelock import FileLock
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.drill_facts import DrilledSource, DrillReport, Phase
from mcp_backup.durable import fsync_directory, fsync_file, write_durably
from mcp_backup.errors import HistoryUnusable
from mcp_backup.format.crypto import MasterKey
from mcp_backup.judging import EVIDENCE
from mcp_backup.record import asdict
from mcp_backup.sources.source import Component
from mcp_backup.verbs import SourceFinding

_PURPOSE = b"mcp-backup drill evidence 1"
_RECORD = re.compile(r"evidence (\d+), seal ")  # as `recording` puts it in the history
_BEGINNING = "0" * 64  # what the first record says came before it
_KEPT = 1000  # records; older ones go when there are twice as many


class Record(Struct, frozen=True):
    """One drill on record."""

    number: int
    previous: str
    digest: str
    seal: str
    drill: DrillReport


class Evidence(Struct, frozen=True):
    """All records that can be believed, oldest first, and what is wrong with the others."""

    records: tuple[Record, ...]
    problems: tuple[str, ...]

    def proofs(self) -> Mapping[tuple[str, str], bool]:
        """Return what the last drill of each copy showed, by (snapshot id, component/source)."""
        found: dict[tuple[str, str], bool] = {}
        for record in self.records:
            for result in record.drill.results:
                if result.outcome != "skipped":
                    found[result.snapshot_id, result.key] = result.outcome == "proven"
        return found

    def against(self, messages: Sequence[str]) -> "Evidence":
        """Compare with what the history's last drills say; tell what was cut off the end."""
        found = [_RECORD.match(message) for message in messages]
        told = max((int(match[1]) for match in found if match), default=0)
        last = self.records[-1].number if self.records else 0
        if told <= last or self.problems:
            return self
        gone = f"record {told} of the evidence is missing: the last there is, is {last or 'none'}"
        return replace(self, problems=(gone,))

    def last_of_sources(self) -> Mapping[str, tuple[Record, DrilledSource]]:
        """Return the last drill of each source's newest copy, by component/source."""
        found: dict[str, tuple[Record, DrilledSource]] = {}
        for record in self.records:
            for result in record.drill.results:
                if result.outcome != "skipped" and result.pick == "newest":
                    found[result.key] = record, result
        return found


class Ledger:
    """The file of evidence. Any thread, any process."""

    def __init__(self, directory: Path, key: MasterKey) -> None:
        """Keep the evidence in `directory`, sealed with what `key` gives."""
        self.path = directory / EVIDENCE
        self._lock = directory / "drills.lock"
        self._key = hmac.digest(key.encrypt + key.mac_k + key.mac_r, _PURPOSE, "sha256")

    async def append(self, report: DrillReport) -> DrillReport:
        """Put a drill on record, durably; return it with its number and seal.

        Raises:
            HistoryUnusable: it could not be.
        """
        return await to_thread.run_sync(self._append, report)

    async def read(self) -> Evidence:
        """Return the evidence; records that do not hold are told of, and left out.

        Raises:
            HistoryUnusable: the file cannot be read.
        """
        return await to_thread.run_sync(self._read)

    def _append(self, report: DrillReport) -> DrillReport:
        try:
            with FileLock(self._lock):
                lines = self._lines()
                if len(lines) >= 2 * _KEPT:
                    lines = lines[-_KEPT:]
                    write_durably(self.path, b"".join(line + b"\n" for line in lines))
                last = _decoded(lines[-1]) if lines else {}
                known = last.get("number")
                number = (known if isinstance(known, int) else len(lines)) + 1
                record = {
                    "number": number,
                    "previous": last.get("digest", _BEGINNING),
                    "drill": plain(report),
                }
                digest = _digest(record)
                seal = self._seal(digest)
                self._write(_canonical(record | {"digest": digest, "seal": seal}) + b"\n")
        except OSError as error:
            raise HistoryUnusable(self.path, str(error)) from error
        return of_plain(record["drill"], number, seal)

    def _write(self, line: bytes) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with open(os.open(self.path, flags, 0o600), "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash left half a line
            file.write(line)
            fsync_file(file.fileno())
        fsync_directory(self.path.parent)

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        except FileNotFoundError:
            return []

    def _read(self) -> Evidence:
        try:
            lines = self._lines()
        except OSError as error:
            raise HistoryUnusable(self.path, str(error)) from error
        records: list[Record] = []
        problems = list(self._judged(lines, records))
        return Evidence(tuple(records), tuple(problems))

    def _judged(self, lines: Sequence[bytes], records: list[Record]) -> Iterator[str]:
        """Fill `records` with what holds; yield what is wrong."""
        before: tuple[int, str] | None = None
        for place, line in enumerate(lines, 1):
            fields = _decoded(line)
            try:
                digest = _digest({name: fields[name] for name in ("number", "previous", "drill")})
                number, seal = int(fields["number"]), str(fields["seal"])
                drill = of_plain(fields["drill"], number, seal)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                yield f"line {place} of the evidence is no record"
                before = None
                continue
            if digest != fields.get("digest") or not _same(seal, self._seal(digest)):
                yield f"record {number} of the evidence was changed, or sealed with another key"
            else:
                records.append(Record(number, fields["previous"], digest, seal, drill))
            if before and (number != before[0] + 1 or fields["previous"] != before[1]):
                yield f"record {number} of the evidence does not follow record {before[0]}"
            before = number, digest

    def _seal(self, digest: str) -> str:
        return hmac.digest(self._key, digest.encode(), "sha256").hex()


def plain(report: DrillReport) -> dict[str, Any]:
    """Return a drill as JSON values."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(report), default=_text))
    del fields["record"], fields["seal"]
    return fields


def of_plain(fields: Mapping[str, Any], number: int = 0, seal: str = "") -> DrillReport:
    """Return the drill that `plain` made JSON of.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    known = dict(fields)
    known["started"] = datetime.fromisoformat(known["started"])
    known["phases"] = tuple(Phase(**each) for each in known["phases"])
    known["findings"] = tuple(SourceFinding(**each) for each in known["findings"])
    known["results"] = tuple(_result(each) for each in known["results"])
    return DrillReport(**known, record=number, seal=seal)


def _result(fields: Mapping[str, Any]) -> DrilledSource:
    known = dict(fields)
    known["component"] = Component(known["component"])
    known["captured"] = datetime.fromisoformat(known["captured"])
    known["phases"] = tuple(Phase(**each) for each in known["phases"])
    known["findings"] = tuple(SourceFinding(**each) for each in known["findings"])
    return DrilledSource(**known)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())


def _text(value: object) -> str:
    assert isinstance(value, datetime), value
    return value.isoformat()


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(record)).hexdigest()


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
