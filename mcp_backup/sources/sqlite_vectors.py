"""Whether the vector tables of a copy hang together: those of sqlite-vec, without that extension.

    v                       CREATE VIRTUAL TABLE v USING vec0(a float[384], b bit[64], ...)
    v_rowids                rowid, id, chunk_id, chunk_offset: where the vectors of a row are
    v_chunks                chunk_id, size, validity, rowids: a bit and a rowid (int64 LE) per place
    v_vector_chunksNN       rowid (a chunk's), vectors: `size` vectors of column NN, end to end
    v_metadatachunksNN      rowid (a chunk's), data

A row is in both of `_rowids` and `_chunks`, or in neither, and each chunk has the vectors of each
column, whole ones. What the numbers in a vector mean, nobody can tell; indexes that newer versions
keep beside these tables are not read.

Source: sqlite-vec 0.1.9, ARCHITECTURE.md and sqlite-vec.c.
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import apsw
from msgspec import Struct

from mcp_backup.sources.source import Evidence, Finding
from mcp_backup.sources.sqlite_evidence import quoted, stored_tables

_MOST_FINDINGS = 5  # of one table: a person reads them
_VEC0 = re.compile(r"\bUSING\s+[\"'`\[]?vec0\b", re.IGNORECASE)
_COLUMN = re.compile(r"[\w\"'`\]]\s+(float|f32|int8|i8|bit)\s*\[\s*(\d{1,9})\s*\]", re.IGNORECASE)
_BITS = {"float": 32, "f32": 32, "int8": 8, "i8": 8, "bit": 1}
_PART = re.compile(r"(vector_chunks|metadatachunks)(\d\d)")


class _Table(Struct, frozen=True):
    """One vector table: its shadow tables by what comes after its name, its columns' vectors."""

    name: str
    parts: frozenset[str]
    bits: Sequence[int]

    def part(self, name: str) -> str:
        """Return a shadow table, quoted."""
        return quoted(f"{self.name}_{name}")


class _Chunk(Struct, frozen=True):
    """One chunk: how many places it has, and the rowids in those that are taken."""

    id: int
    size: int
    taken: dict[int, int]


def vector_findings(connection: apsw.Connection, evidence: Evidence | None) -> list[Finding]:
    """Examine every vector table but those that were not captured whole.

    Raises:
        apsw.CorruptError: a page cannot be read.
    """
    excluded = set(evidence.facts.get("excluded", ())) if evidence else set()
    findings = []
    for table in _tables(connection):
        if excluded & {table.name, *(f"{table.name}_{part}" for part in table.parts)}:
            continue
        try:
            told = list(dict.fromkeys(islice(_wrong(connection, table), _MOST_FINDINGS)))
        except apsw.SQLError as error:  # shadow tables of other columns
            told = [f"its shadow tables are not sqlite-vec's: {error}"]
        findings += [Finding("vectors", table.name, fact) for fact in told]
    return findings


def _tables(connection: apsw.Connection) -> Iterator[_Table]:
    stored = stored_tables(connection)
    query = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND NOT rootpage > 0"
    for name, sql in connection.execute(query).fetchall():
        if isinstance(name, str) and isinstance(sql, str) and _VEC0.search(sql):
            prefix = f"{name}_"
            parts = {each.removeprefix(prefix) for each in stored if each.startswith(prefix)}
            bits = [_BITS[kind.lower()] * int(count) for kind, count in _COLUMN.findall(sql)]
            yield _Table(name, frozenset(parts), bits)


def _wrong(connection: apsw.Connection, table: _Table) -> Iterator[str]:
    """Yield what is wrong with one table."""
    if missing := sorted({"chunks", "rowids"} - table.parts):
        yield f"shadow tables are missing: {', '.join(f'{table.name}_{part}' for part in missing)}"
        return
    chunks: dict[int, int] = {}
    rows = _Rows(connection, table)
    for row in connection.execute(
        "SELECT chunk_id, size, length(CAST(validity AS BLOB)), length(CAST(rowids AS BLOB)), "
        f"validity, rowids FROM {table.part('chunks')} ORDER BY chunk_id"
    ):
        chunk = _chunk(row)
        if isinstance(chunk, str):
            yield chunk
            continue
        chunks[chunk.id] = chunk.size
        yield from _compared(chunk, rows.of(chunk.id))
    yield from rows.left()
    for part in sorted(table.parts):
        if found := _PART.fullmatch(part):
            bits = _bits_of(table, int(found[2])) if found[1] == "vector_chunks" else None
            yield from _part(connection, table, part, chunks, bits)


def _bits_of(table: _Table, column: int) -> int | None:
    return table.bits[column] if column < len(table.bits) else None


def _chunk(row: Sequence[Any]) -> _Chunk | str:
    """Return a chunk, or what is wrong with it."""
    identity, size, bits, bytes_, validity, rowids = row
    if not isinstance(size, int) or size < 8 or size % 8:
        return f"chunk {identity} is said to have {size!s:.20} places"
    if (bits, bytes_) != (size // 8, size * 8):
        return (
            f"chunk {identity} has {size} places: expected {size // 8} and {size * 8} bytes of "
            f"validity and rowids, got {bits} and {bytes_}"
        )
    if not isinstance(validity, bytes) or not isinstance(rowids, bytes):
        return f"chunk {identity}: its validity or its rowids are no blob"
    numbers = struct.unpack(f"<{size}q", rowids)
    taken = {
        place: numbers[place] for place in range(size) if validity[place >> 3] >> (place & 7) & 1
    }
    return _Chunk(identity, size, taken)


class _Rows:
    """The rows of `_rowids`, chunk after chunk."""

    def __init__(self, connection: apsw.Connection, table: _Table) -> None:
        cursor = connection.execute(
            f"SELECT chunk_id, chunk_offset, rowid FROM {table.part('rowids')} ORDER BY chunk_id"
        )
        key: Callable[[tuple[Any, ...]], Any] = lambda row: row[0]  # noqa: E731 - for groupby
        self._groups = groupby(cursor, key)
        self._waiting = self._next()
        self._strays: list[tuple[Any, int]] = []

    def of(self, chunk: int) -> dict[Any, int]:
        """Return place → rowid of a chunk; chunks are asked for in order."""
        while self._waiting and (not isinstance(self._waiting[0], int) or self._waiting[0] < chunk):
            self._stray()
        if not self._waiting or self._waiting[0] != chunk:
            return {}
        found = {place: rowid for _, place, rowid in self._waiting[1]}
        self._waiting = self._next()
        return found

    def left(self) -> Iterator[str]:
        """Yield what is wrong with the rows that no chunk was asked for."""
        while self._waiting:
            self._stray()
        for chunk, count in self._strays:
            yield f"{count} rows are said to be in chunk {chunk!s:.20}, which is not there"

    def _stray(self) -> None:
        if self._waiting:
            self._strays.append((self._waiting[0], sum(1 for _ in self._waiting[1])))
            self._waiting = self._next()

    def _next(self) -> tuple[Any, Iterator[tuple[Any, ...]]] | None:
        return next(self._groups, None)


def _compared(chunk: _Chunk, rows: dict[Any, int]) -> Iterator[str]:
    """Compare what a chunk says of its places with what the rows say."""
    if len(chunk.taken) != len(rows):
        yield f"chunk {chunk.id}: {len(chunk.taken)} places are taken, by {len(rows)} rows"
    for place, rowid in rows.items():
        if place not in chunk.taken:
            yield f"row {rowid} is at place {place!s:.20} of chunk {chunk.id}, which is not taken"
        elif chunk.taken[place] != rowid:
            there = chunk.taken[place]
            yield f"row {rowid} is at place {place} of chunk {chunk.id}, where row {there} is"


def _part(
    connection: apsw.Connection,
    table: _Table,
    part: str,
    chunks: dict[int, int],
    bits: int | None,
) -> Iterator[str]:
    """Compare the chunks of one column with the chunks there are, and their sizes."""
    column = "vectors" if part.startswith("vector") else "data"
    query = f"SELECT rowid, length(CAST({column} AS BLOB)) FROM {table.part(part)}"
    seen: dict[Any, int] = dict(connection.execute(query))
    name = f"{table.name}_{part}"
    for chunk in chunks.keys() - seen.keys():
        yield f"{name} has nothing of chunk {chunk}"
    for chunk in seen.keys() - chunks.keys():
        yield f"{name} has something of chunk {chunk!s:.20}, which is not there"
    for chunk in sorted(chunks.keys() & seen.keys()):
        size, length = chunks[chunk], seen[chunk]
        if bits is not None and length != size * bits // 8:
            wanted = f"{size} vectors of {bits // 8} bytes"
            yield f"{name}, chunk {chunk}: expected {wanted}, got {length} bytes"
        elif part.startswith("vector") and length % size:
            yield f"{name}, chunk {chunk}: {length} bytes are not {size} whole vectors"
