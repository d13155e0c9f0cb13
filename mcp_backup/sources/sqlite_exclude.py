"""Tables left out of a backup: kept in the image, empty, and their bytes wiped from it.

Done on a private copy, page by page as SQLite deletes: other pages stay where they were, so
that they are recognised as known. What lies between rows is wiped everywhere (`sqlite_wipe`): rows
deleted long ago are found there, in pages that other tables have taken over since.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import apsw

from mcp_backup.errors import SettingsInvalid, SourceUnreadable
from mcp_backup.sources.sqlite_evidence import quoted
from mcp_backup.sources.sqlite_reading import connected
from mcp_backup.sources.sqlite_wipe import wipe_unused

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
    wipe_unused(copy)
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
    for statistics in _STATISTICS:
        there = "SELECT 1 FROM sqlite_schema WHERE name = ?"
        if connection.execute(there, (statistics,)).get is None:
            continue
        for table in tables:
            connection.execute(
                f"DELETE FROM {statistics} WHERE tbl = ?1 OR "
                "substr(tbl, 1, length(?1) + 1) = ?1 || '_'",
                (table,),
            )
