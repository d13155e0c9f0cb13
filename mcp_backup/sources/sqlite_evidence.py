"""What an SQLite database says about itself, to compare a restored copy with.

Read within one transaction: at capture the one whose pages are streamed, so that counts and
pages are of the same moment.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import apsw
from blake3 import blake3

ENGINE = f"SQLite {apsw.sqlite_lib_version()}"
_FOREIGN_KEY_STEPS = 100_000  # of SQLite's machine, some 10,000 rows: see `facts`
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
    `foreign_key_violations`: a source may have had them all along. To go through a large one would
    take as long as to read it, and tell nothing that the digest of its bytes does not.
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
    connection.set_progress_handler(lambda: True, _FOREIGN_KEY_STEPS)
    try:
        if not has_foreign_keys(connection):
            return None
        return sum(1 for _ in foreign_key_faults(connection))
    except (apsw.InterruptError, apsw.SQLError, apsw.CorruptError):
        return None
    finally:
        connection.set_progress_handler(None)
