"""What an SQLite database says about itself, to compare a restored copy with.

Read within one transaction: at capture the one whose pages are streamed, so that counts and
pages are of the same moment.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import apsw
from blake3 import blake3

ENGINE = f"SQLite {apsw.sqlite_lib_version()}"
_FOREIGN_KEY_SECONDS = 2.0  # of a capture, which holds up checkpoints meanwhile
_STEPS = 50_000  # of SQLite's machine between two looks at the clock: some milliseconds
PRAGMAS = (
    "page_size",
    "page_count",
    "encoding",
    "auto_vacuum",
    "user_version",
    "application_id",
)


def facts(connection: apsw.Connection, notes: list[str]) -> dict[str, Any]:
    """Return facts of `Evidence` for the database on `connection`; note what has no count.

    Of foreign keys only databases that have some and are quickly examined get a fact,
    `foreign_key_violations`: a source may have had them all along.
    """
    seen: dict[str, Any] = {name: connection.pragma(name) for name in PRAGMAS}
    seen["schema"] = schema_digest(connection)
    seen["tables"] = row_counts(connection, notes)
    violations = _foreign_key_violations(connection)
    if violations is not None:
        seen["foreign_key_violations"] = violations
    return seen


def schema_digest(connection: apsw.Connection) -> str:
    """Return the BLAKE3 of the schema: its SQL, sorted, so that order does not matter."""
    rows = connection.execute("SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE sql IS NOT NULL")
    return blake3(b"\0".join(sorted(bytes(sql) for (sql,) in rows))).hexdigest()


def row_counts(connection: apsw.Connection, notes: list[str]) -> Mapping[str, int]:
    """Count the rows of all tables that have pages of their own.

    Virtual tables have none: their rows lie in shadow tables, which are counted.
    """
    counts: dict[str, int] = {}
    for name in stored_tables(connection):
        try:
            counts[name] = connection.execute(f"SELECT count(*) FROM {quoted(name)}").get
        except (apsw.SQLError, apsw.CorruptError) as error:
            notes.append(f"table {name}: not counted: {error}")
    return counts


def stored_tables(connection: apsw.Connection) -> list[str]:
    """Return the names of all tables with pages of their own, sorted."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"
    )
    return [name for (name,) in rows]


def virtual_tables(connection: apsw.Connection) -> list[str]:
    """Return the names of all tables that some module keeps, sorted."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND NOT rootpage > 0 ORDER BY name"
    )
    return [name for (name,) in rows]


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def foreign_key_faults(connection: apsw.Connection) -> Iterator[tuple[str, str]]:
    """Yield (table, table referred to) for each row whose foreign key points nowhere."""
    for table, _rowid, parent, _key in connection.execute("PRAGMA foreign_key_check"):
        yield table, parent


def has_foreign_keys(connection: apsw.Connection) -> bool:
    """Whether any table of the schema refers to another."""
    return any(
        connection.execute(f"PRAGMA foreign_key_list({quoted(name)})").get is not None
        for name in stored_tables(connection)
    )


def _foreign_key_violations(connection: apsw.Connection) -> int | None:
    """Count the rows whose foreign keys point nowhere; None when that takes too long, or fails."""
    end = time.monotonic() + _FOREIGN_KEY_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        if not has_foreign_keys(connection):
            return None
        return sum(1 for _ in foreign_key_faults(connection))
    except (apsw.InterruptError, apsw.SQLError, apsw.CorruptError):
        return None
    finally:
        connection.set_progress_handler(None)
