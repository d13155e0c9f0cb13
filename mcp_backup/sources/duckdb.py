"""DuckDB databases, captured while another process writes to them, and put back when none does.

    proven     a capture is one committed state, opened and read to its end before it counts, or
               it is an error (`duckdb_copy`)
    apart      DuckDB runs in processes of its own: a bad file takes no worker down with it
               (`duckdb_library`, `duckdb_asking`)
    raw        the file is stored as it is, with its write-ahead log beside it: blocks that did
               not change stay known
    many       a directory of databases is one source; each file is one point in time

What is put back, and how, is in `duckdb_placement`; what a copy is compared with in
`duckdb_examine`.
"""

import grp
import pwd
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp_backup.errors import SettingsInvalid, SourceError, SourceUnreadable
from mcp_backup.sources.duckdb_asking import Fault, ask, require, unreadable
from mcp_backup.sources.duckdb_checks import value_of
from mcp_backup.sources.duckdb_copy import Copied, Patience, Reader, copied
from mcp_backup.sources.duckdb_examine import (
    content_digest,
    examine,
    is_sound,
    opens,
    reach,
    signature,
    signature_of,
)
from mcp_backup.sources.duckdb_file import FIRST_BLOCK, Shard, beside, shards_of
from mcp_backup.sources.duckdb_file import fingerprint as _fingerprint
from mcp_backup.sources.duckdb_placement import holders_of_source as holders
from mcp_backup.sources.duckdb_placement import place
from mcp_backup.sources.duckdb_undo import keep, put_back
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Entry, Evidence, FileEvidence, SourceSpec

__all__ = [
    "capture",
    "content_digest",
    "examine",
    "fingerprint",
    "holders",
    "is_sound",
    "keep",
    "opens",
    "place",
    "put_back",
    "reach",
    "signature",
    "signature_of",
    "value_of",
]

_READ = 1 << 20
_PAGE = 4096  # the size of a header, which divides all others


def capture(spec: SourceSpec, sink: Sink, scratch: Path) -> Evidence:
    """Read every database of the source into `sink`, each with its write-ahead log.

    `scratch` takes a copy of the largest one, two where tables are excluded.

    Raises:
        SourceMissing, SourceUnreadable, SourceUnstable: as they say.
        SettingsInvalid: `exclude_tables` names no table.
    """
    return captured_with(spec, sink, scratch)


def captured_with(
    spec: SourceSpec,
    sink: Sink,
    scratch: Path,
    patience: Callable[[], Patience] = Patience,
    reader: Reader | None = None,
) -> Evidence:
    """Capture with given patience for each file, and a given reader; what `capture` does."""
    require(spec.name)
    known = fingerprint(spec)  # before anything is read: then it is never newer than a copy
    reading = _Reading(spec, sink, scratch)
    for shard in shards_of(spec.name, spec.path):
        try:
            reading.send(shard, copied(spec.name, shard, reading.copy, patience(), reader))
        finally:
            reading.clear()
    reading.refuse_unknown_tables()
    return Evidence(reading.engine, tuple(reading.files), reading.facts, tuple(sink.notes), known)


def fingerprint(spec: SourceSpec) -> str:
    """Identify the live state; equal to an earlier one only if nothing was written since."""
    try:
        return _fingerprint(shards_of(spec.name, spec.path), time.time_ns())
    except (SourceError, OSError):
        return ""


class _Reading:
    """One capture: copies to the sink, evidence of them all together.

    Of a source with many files, `tables` and `columns` have the file's path before the name.
    """

    def __init__(self, spec: SourceSpec, sink: Sink, scratch: Path) -> None:
        self.copy = scratch / "database"
        self.engine = "DuckDB"
        self.files: list[FileEvidence] = []
        self.facts: dict[str, Any] = {
            "shards": {},
            "tables": {},
            "columns": {},
            "extensions": [],
            "excluded": [],
        }
        self._spec, self._sink = spec, sink
        self._unknown = {table.lower(): table for table in _excluded(spec)}

    def send(self, shard: Shard, copy: Copied) -> None:
        """Send one database, without the rows of the tables that are left out."""
        facts, path = dict(copy.facts), copy.path
        tables = self._to_empty(facts)
        if copy.unread:
            self._note_unread(shard, copy)
        elif tables:
            path, facts = self._emptied(shard, path, tables)
        self._add(shard, facts)
        name = shard.key or Path(self._spec.path).name
        self._file(name, shard.path, path, copy, "image")
        log = beside(path, ".wal")
        if log.exists():
            self._file(f"{name}.wal", shard.wal, log, copy, "stream")

    def clear(self) -> None:
        """Remove the copies."""
        for left in self.copy.parent.glob(f"{self.copy.name}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def refuse_unknown_tables(self) -> None:
        """Refuse settings that leave out what is in none of the databases.

        Raises:
            SettingsInvalid: names what there is.
        """
        missing = ", ".join(repr(table) for table in self._unknown.values())
        if missing:
            raise SettingsInvalid(
                f"source {self._spec.name!r}: `exclude_tables` names {missing}, and there is no "
                f"such table; there are: {', '.join(self.facts['tables']) or 'none'}",
                hint="Correct `exclude_tables` in the settings. The source was not backed up.",
            )

    def _to_empty(self, facts: dict[str, Any]) -> list[str]:
        wanted = {table.lower() for table in _excluded(self._spec)}
        found = [table for table in facts.get("tables", ()) if table.lower() in wanted]
        for table in found:
            self._unknown.pop(table.lower(), None)
        return found

    def _note_unread(self, shard: Shard, copy: Copied) -> None:
        if _excluded(self._spec):
            raise SourceUnreadable(
                f"source {self._spec.name!r}: no table can be left out of {shard.path}: "
                f"{copy.unread}",
                hint="Upgrade the `duckdb` module beside mcp-backup. It was not backed up.",
            )
        self.facts["shards"][shard.key] = {"unread": copy.unread}
        self._sink.note(f"{shard.path}: stored, and not looked into: {copy.unread}")

    def _emptied(self, shard: Shard, path: Path, tables: list[str]) -> tuple[Path, dict[str, Any]]:
        try:
            answer = ask(self._spec.name, "empty", path, *tables)
        except Fault as fault:
            if fault.why == "full":
                raise unreadable(self._spec.name, shard.path, fault) from fault
            raise SourceUnreadable(
                f"source {self._spec.name!r}: {', '.join(tables)} cannot be left out: {fault}",
                hint="Name the tables that refer to them in `exclude_tables` as well, or leave "
                "none out. It was not backed up.",
            ) from fault
        emptied = answer["facts"]
        self.facts["excluded"] += [_prefixed(shard, table) for table in answer["excluded"]]
        return beside(path, ".emptied"), emptied

    def _add(self, shard: Shard, facts: dict[str, Any]) -> None:
        if not facts:
            return
        self.engine = facts["engine"]
        told = ("storage_version", "schema", "content")
        self.facts["shards"][shard.key] = {key: facts[key] for key in told}
        for fact in ("tables", "columns"):
            for table, value in facts[fact].items():
                self.facts[fact][_prefixed(shard, table)] = value
        self.facts["extensions"] = sorted({*self.facts["extensions"], *facts["extensions"]})

    def _file(self, name: str, original: Path, path: Path, copy: Copied, layout: Any) -> None:
        status = copy.status
        image = layout == "image"
        self._sink.entry(
            Entry(
                path=name,
                type="file",
                mode=stat.S_IMODE(status.st_mode),
                mtime_ns=copy.changed_ns,
                uid=status.st_uid,
                gid=status.st_gid,
                user=_named(lambda: pwd.getpwuid(status.st_uid).pw_name),
                group=_named(lambda: grp.getgrgid(status.st_gid).gr_name),
                layout=layout,
                page_size=_PAGE if image else 0,
                lead=FIRST_BLOCK if image else 0,
                size=path.stat().st_size,
            )
        )
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_READ):
                self._sink.write(piece)
        self.files.append(self._sink.end_file(str(original)))


def _prefixed(shard: Shard, table: str) -> str:
    return f"{shard.key}:{table}" if shard.key else table


def _excluded(spec: SourceSpec) -> list[str]:
    tables = spec.options.get("exclude_tables", [])
    if not isinstance(tables, list) or not all(isinstance(table, str) for table in tables):
        raise SettingsInvalid(
            f"source {spec.name!r}: `exclude_tables` is {tables!r}, not a list of names",
            hint="Correct it in the settings. The source was not backed up.",
        )
    return tables


def _named(look_up: Callable[[], str]) -> str:
    try:
        return look_up()
    except KeyError:
        return ""
