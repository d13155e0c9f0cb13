"""Suspicion: does a copy look shrunken against the one before it?

A source that lost most of its rows is captured as faithfully as one that did not, and its backup
verifies. Only the comparison tells. What is suspect is stored all the same, since people do empty
tables on purpose; but it is told, and like a damaged copy it does not count as good, so it takes
no good backup's place. Said once, in the backup that lost them: the next is compared with that.

Counts that rise and fall by themselves are left out: the segments of full-text indexes, SQLite's
own tables, and tables that the settings keep empty.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_backup.manifest import SourceRecord
from mcp_backup.sources.source import Component, Evidence, Finding

_FEW_ROWS = 100  # a table below that is a handful of settings or a queue, which come and go
_FEW_FILES = 4
_FEW_BYTES = 64 << 10
_TABLE_LEFT = 0.1  # of one table's rows: less is a collapse
_LEFT = 0.5  # of all rows, tables or files
_SIZE_LEFT = 0.1  # of the bytes, where nothing better can be counted
_SEGMENTS = {  # suffixes of full-text bookkeeping → that of a table that is always beside it
    "_data": "_config",
    "_idx": "_config",
    "_segments": "_segdir",
    "_segdir": "_segdir",
    "_stat": "_segdir",
}


def losses(record: SourceRecord, previous: SourceRecord | None) -> tuple[Finding, ...]:
    """Say what one source lost since the backup before, in which it was `previous`, if in any.

    A source that failed has no copy, and so has lost nothing.
    """
    return () if record.outcome == "failed" else tuple(_losses(record, previous))


def _losses(record: SourceRecord, previous: SourceRecord | None) -> Iterator[Finding]:
    now, then = record.evidence, previous.evidence if previous else None
    if now is None or then is None or previous is None or previous.kind != record.kind:
        return
    tables, before = _tables(now), _tables(then)
    if tables is not None and before is not None:
        excluded: Any = now.facts.get("excluded", ())
        empty = {str(name) for name in excluded} if isinstance(excluded, list | tuple) else set()
        kept = {name: rows for name, rows in before.items() if name not in empty}
        yield from _lost_rows(record.name, tables, kept)
        return
    if record.component is not Component.DATABASES:
        yield from _fewer("files", record.name, len(now.files), len(then.files), _FEW_FILES)
    size, size_before = (sum(file.size for file in seen.files) for seen in (now, then))
    if size_before >= _FEW_BYTES and size < size_before * _SIZE_LEFT:
        yield Finding("shrunken", record.name, f"{size} bytes, {size_before} in the backup before")


def _lost_rows(
    source: str, tables: Mapping[str, int], before: Mapping[str, int]
) -> Iterator[Finding]:
    for name, rows_before in sorted(before.items()):
        rows = tables.get(name)
        if rows_before < _FEW_ROWS or (rows or 0) >= rows_before * _TABLE_LEFT:
            continue
        left = "gone" if rows is None else f"{rows} rows"
        yield Finding("shrunken", name, f"{left}, {rows_before} rows in the backup before")
    yield from _fewer("tables", source, len(tables.keys() & before.keys()), len(before), 1)
    yield from _fewer("rows", source, sum(tables.values()), sum(before.values()), _FEW_ROWS)


def _fewer(what: str, source: str, count: int, before: int, few: int) -> Iterator[Finding]:
    if before >= few and count < before * _LEFT:
        yield Finding("shrunken", source, f"{count} {what}, {before} in the backup before")


def _tables(evidence: Evidence) -> dict[str, int] | None:
    """Return the rows of each table that holds something of its owner's; None if none counted."""
    tables: Any = evidence.facts.get("tables")
    if not isinstance(tables, Mapping) or any(type(rows) is not int for rows in tables.values()):
        return None
    return {
        str(name): int(rows)
        for name, rows in tables.items()
        if not name.startswith("sqlite_") and not _is_segment(name, tables)
    }


def _is_segment(name: str, tables: Mapping[str, int]) -> bool:
    return any(
        name.endswith(suffix) and name.removesuffix(suffix) + beside in tables
        for suffix, beside in _SEGMENTS.items()
    )
