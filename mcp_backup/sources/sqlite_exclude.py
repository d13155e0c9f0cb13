"""Tables left out of a backup: kept in the image, empty, and their bytes wiped from it.

Done on a private copy, page by page as SQLite deletes: other pages stay where they were, so
that they are recognised as known. What SQLite leaves in pages that it once freed is wiped too.
Remnants inside pages that other tables took over long ago are beyond reach; a database that was
`VACUUM`ed, or has `secure_delete` on, has none.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import apsw

from mcp_backup.errors import SettingsInvalid, SourceUnreadable
from mcp_backup.sources.sqlite_evidence import quoted
from mcp_backup.sources.sqlite_reading import connected

_STATISTICS = ("sqlite_stat1", "sqlite_stat3", "sqlite_stat4")  # the last two hold samples of rows
_NOT_EMPTIED = {"view": "a view", "shadow": "a part of a virtual table"}
_FULL_TEXT = re.compile(r"\bUSING\s+fts[345]\b", re.IGNORECASE)


def empty_tables(name: str, copy: Path, tables: Sequence[str]) -> list[str]:
    """Empty `tables` in the private `copy` of source `name`; return their names as in the schema.

    Foreign keys, triggers and views stay as they are and are not acted on.

    Raises:
        SettingsInvalid: there is no such table, or it is none that can be emptied.
        SourceUnreadable: it cannot be emptied here.
    """
    connection = connected(copy, apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.pragma("locking_mode", "exclusive")
        connection.pragma("secure_delete", True)
        connection.pragma("foreign_keys", False)
        found = [_found(connection, name, table) for table in tables]
        with connection:
            for table in found:
                _empty(connection, name, table)
            _forget_statistics(connection, found)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close()
    _wipe_free_pages(copy)
    return found


def _found(connection: apsw.Connection, name: str, table: str) -> str:
    """Return the table's name as the schema spells it."""
    rows = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
    kinds: dict[str, str] = {
        known: kind for known, kind in rows if not known.lower().startswith("sqlite_")
    }
    match = next((known for known in kinds if known.lower() == table.lower()), None)
    if match is None:
        there = sorted(known for known, kind in kinds.items() if kind in ("table", "virtual"))
        raise SettingsInvalid(
            f"source {name!r}: `exclude_tables` names {table!r}, and there is no such table; "
            f"there are: {', '.join(there) or 'none'}",
            hint="Correct `exclude_tables` in the settings. The source was not backed up.",
        )
    if kinds[match] in _NOT_EMPTIED:
        raise SettingsInvalid(
            f"source {name!r}: `exclude_tables` names {table!r}, "
            f"which is {_NOT_EMPTIED[kinds[match]]}",
            hint="Name the table that holds the rows. The source was not backed up.",
        )
    return match


def _empty(connection: apsw.Connection, name: str, table: str) -> None:
    try:
        if _has_own_content(connection, table):
            connection.execute(f"DELETE FROM {quoted(table)}")
        for index in _full_text_of(connection, table):
            _empty_index(connection, index)
    except apsw.SQLError as error:
        raise SourceUnreadable(
            f"source {name!r}: table {table!r} cannot be emptied: {error}",
            hint="Take it out of `exclude_tables`: a virtual table whose module is not part of "
            "SQLite cannot be left out. The source was not backed up.",
        ) from error


def _sql(connection: apsw.Connection, table: str) -> str:
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,))
    return "".join(str(sql) for (sql,) in rows)


def _content_of(sql: str) -> str | None:
    """Return which table a full-text index gets its rows from: None its own, "" none."""
    found = re.search(r"\bcontent\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^\s,)]*))", sql, re.IGNORECASE)
    return next((group for group in found.groups() if group is not None), "") if found else None


def _has_own_content(connection: apsw.Connection, table: str) -> bool:
    sql = _sql(connection, table)
    return not _FULL_TEXT.search(sql) or _content_of(sql) is None


def _full_text_of(connection: apsw.Connection, table: str) -> list[str]:
    """Return the full-text tables whose index holds words of `table`: itself, or over it."""
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND rootpage = 0"
    )
    return [
        index
        for index, sql in rows
        if _FULL_TEXT.search(sql or "")
        and (index == table or (_content_of(sql) or "").lower() == table.lower())
    ]


def _empty_index(connection: apsw.Connection, index: str) -> None:
    """Forget all words: deleting rows leaves them in an index until it is merged."""
    command = "delete-all" if _content_of(_sql(connection, index)) == "" else "rebuild"
    target = quoted(index)
    connection.execute(f"INSERT INTO {target}({target}) VALUES (?)", (command,))


def _forget_statistics(connection: apsw.Connection, tables: Sequence[str]) -> None:
    """Forget the planner's statistics of these tables, and of the shadow tables below them."""
    named = "tbl = ?1 OR substr(tbl, 1, length(?1) + 1) = ?1 || '_'"
    for statistics in _STATISTICS:
        there = "SELECT 1 FROM sqlite_schema WHERE name = ?"
        if connection.execute(there, (statistics,)).get is not None:
            for table in tables:
                connection.execute(f"DELETE FROM {statistics} WHERE {named}", (table,))


def _wipe_free_pages(copy: Path) -> None:
    """Zero what is on pages that no table uses: SQLite wiped only those it freed just now.

    The free list is a chain of trunk pages: next trunk, count, and that many leaves' numbers;
    uint32 big-endian each. A leaf's content means nothing, nor does what follows in a trunk.
    """
    with open(copy, "r+b", buffering=0) as file:
        header = file.read(100)
        page_size = int.from_bytes(header[16:18], "big")
        page_size = 65536 if page_size == 1 else page_size
        pages = os.fstat(file.fileno()).st_size // page_size
        trunk, seen = int.from_bytes(header[32:36], "big"), set[int]()
        while 0 < trunk <= pages and trunk not in seen:
            seen.add(trunk)
            at = (trunk - 1) * page_size
            content = os.pread(file.fileno(), page_size, at)
            count = min(int.from_bytes(content[4:8], "big"), page_size // 4 - 2)
            for position in range(8, 8 + 4 * count, 4):
                leaf = int.from_bytes(content[position : position + 4], "big")
                if 0 < leaf <= pages:
                    os.pwrite(file.fileno(), bytes(page_size), (leaf - 1) * page_size)
            end = 8 + 4 * count
            os.pwrite(file.fileno(), bytes(page_size - end), at + end)
            trunk = int.from_bytes(content[:4], "big")
