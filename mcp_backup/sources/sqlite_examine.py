"""Whether a copy of an SQLite database is whole, and what its source saw when it was captured.

A staged copy is opened as immutable: not a byte of it changes, no file appears beside it. Since
SQLite 3.44 the integrity check asks full-text and R-tree tables for theirs, read-only; vector
tables, whose extension is not here, are looked at from outside (`sqlite_vectors`). To read a
full-text index takes longer than all the rest, so a second connection does that meanwhile, in a
thread: SQLite lets go of the interpreter while it works.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from mcp_backup.errors import IntegrityError, SourceUnreadable
from mcp_backup.sources.source import Evidence, Finding, SourceSpec
from mcp_backup.sources.sqlite_evidence import (
    PRAGMAS,
    foreign_key_faults,
    quoted,
    row_counts,
    schema_digest,
    stored_tables,
    virtual_tables,
)
from mcp_backup.sources.sqlite_plain import readable
from mcp_backup.sources.sqlite_reading import begin, connected, stand_in, undisturbed
from mcp_backup.sources.sqlite_vectors import vector_findings

_MOST_FINDINGS = 20  # of one kind: a person reads them
_BROKEN = (apsw.NotADBError, apsw.CorruptError, apsw.IOError, apsw.CantOpenError)


def examine(directory: Path, evidence: Evidence | None) -> list[Finding]:
    """Examine the one database in `directory`, and compare it with `evidence` if there is any.

    Violations of foreign keys are found only where there are more or fewer than at the capture.

    Raises:
        SourceUnreadable: the directory holds several files, or none.
    """
    path = only_file(directory)
    connection = connected(path, query="?immutable=1")
    unknown: list[str] = []

    def needed(target: apsw.Connection, name: str) -> None:
        unknown.append(name)
        stand_in(target, name)

    connection.collation_needed(needed)
    connection.drop_modules(None)  # then the check passes virtual tables over
    try:
        begin(connection)
        with ThreadPoolExecutor(1) as meanwhile:
            virtual = virtual_tables(connection)
            asked = meanwhile.submit(_ask_virtual, path, virtual) if virtual else None
            faults = _integrity(connection, unknown)
            findings = _foreign_keys(connection, evidence)
            if evidence is not None:
                findings += _differences(connection, path.name, evidence)
            findings += vector_findings(connection, evidence)
            faults += asked.result() if asked else []
        findings[:0] = [_fault(path.name, fault) for fault in faults]
    except _BROKEN as error:
        return [Finding("integrity", path.name, f"not a whole SQLite database: {error}")]
    finally:
        connection.close()
    return findings


def opens(directory: Path, evidence: Evidence) -> list[Finding]:
    """See that SQLite reads the schema of a database which was examined before, and it is the one.

    For bytes that are known to be those that `examine` was given: what it found, it would again.

    Raises:
        SourceUnreadable: the directory holds several files, or none.
    """
    path = only_file(directory)
    connection = connected(path, query="?immutable=1")
    connection.drop_modules(None)
    try:
        begin(connection)
        return list(_outline(connection, path.name, evidence))
    except _BROKEN as error:
        return [Finding("integrity", path.name, f"not a whole SQLite database: {error}")]
    finally:
        connection.close()


def only_file(directory: Path) -> Path:
    """Return the one file in the directory of a database's copy.

    Raises:
        SourceUnreadable: there are several, or none.
    """
    files = [path for path in directory.iterdir() if path.is_file() and not path.is_symlink()]
    if len(files) != 1:
        raise SourceUnreadable(f"{directory} holds {len(files)} files, and a database is one")
    return files[0]


def is_sound(spec: SourceSpec) -> bool:
    """Tell whether the live database opens and its schema can be read. Changes nothing."""
    try:
        with undisturbed(spec.name, spec.path):
            return True
    except SourceUnreadable:
        return False


def content_digest(name: str, path: Path) -> str:
    """Return the digest of the database's image, with what a copy changes in its header masked.

    Equal for a database and any other it was copied into or from with SQLite's backup.
    """
    with readable() as reader, undisturbed(name, path) as connection:
        return reader.read(connection, _nowhere)


def _nowhere(_offset: int, _data: bytes | memoryview) -> None:
    """Let a piece go."""


def _ask_virtual(path: Path, tables: list[str]) -> list[str]:
    """Have virtual tables examine what they keep; those that need their program are passed over."""
    connection = connected(path, query="?immutable=1")
    faults: list[str] = []
    try:
        for table in tables:
            with suppress(apsw.SQLError):
                check = f"PRAGMA integrity_check({quoted(table)})"
                faults += _faults(connection, check)[:_MOST_FINDINGS]
    finally:
        connection.close()
    return faults


def _integrity(connection: apsw.Connection, unknown: list[str]) -> list[str]:
    try:
        faults = _faults(connection, f"PRAGMA integrity_check({_MOST_FINDINGS})")
        if faults and unknown:  # an order of our own finds rows out of order: do not ask for it
            faults = _faults(connection, f"PRAGMA quick_check({_MOST_FINDINGS})")
    except apsw.SQLError:  # a function that only the program knows
        faults = [
            fault for table in stored_tables(connection) for fault in _table(connection, table)
        ]
    return faults


def _fault(name: str, fault: str) -> Finding:
    return Finding("fts" if "inverted index for FTS" in fault else "integrity", name, fault)


def _faults(connection: apsw.Connection, check: str) -> list[str]:
    faults = [str(fault) for (fault,) in connection.execute(check)]
    return [] if faults == ["ok"] else faults


def _table(connection: apsw.Connection, table: str) -> list[str]:
    try:
        return _faults(connection, f"PRAGMA quick_check({quoted(table)})")
    except apsw.SQLError:
        return []  # of this one, without its program, nothing can be said


def _foreign_keys(connection: apsw.Connection, evidence: Evidence | None) -> list[Finding]:
    before = evidence.facts.get("foreign_key_violations") if evidence is not None else 0
    if before is None:
        return []  # not counted then: the source may have had them all along
    counts: dict[tuple[str, str], int] = {}
    try:
        for fault in foreign_key_faults(connection):
            counts[fault] = counts.get(fault, 0) + 1
    except apsw.SQLError:
        return []  # a key that SQLite cannot check, in the live database no more than here
    if sum(counts.values()) == before:
        return []
    return [
        Finding(
            "foreign-keys",
            table,
            f"{count} rows refer to rows of {parent} that are not there; "
            f"at the capture, {before} in all did",
        )
        for (table, parent), count in list(counts.items())[:_MOST_FINDINGS]
    ]


def _outline(connection: apsw.Connection, name: str, evidence: Evidence) -> Iterator[Finding]:
    expected: Any = evidence.facts
    for pragma in PRAGMAS:
        value = connection.pragma(pragma)
        if pragma in expected and value != expected[pragma]:
            yield Finding("pragma", name, f"{pragma}: expected {expected[pragma]}, got {value}")
    if "schema" in expected and schema_digest(connection) != expected["schema"]:
        yield Finding("schema", name, "the schema is not the one that was captured")


def _differences(connection: apsw.Connection, name: str, evidence: Evidence) -> Iterator[Finding]:
    yield from _outline(connection, name, evidence)
    counts, counted = row_counts(connection, []), evidence.facts.get("tables", {})
    if not isinstance(counted, dict):
        raise IntegrityError(
            f"the evidence of {name} is none: its tables are {counted!r:.60}",
            hint="The repository holds something mcp-backup did not write; use another backup.",
        )
    for table in sorted(counted.keys() | counts.keys()):
        before, now = counted.get(table, "no table"), counts.get(table, "no table")
        if before != now:
            yield Finding("row-count", table, f"expected {before}, got {now}")
