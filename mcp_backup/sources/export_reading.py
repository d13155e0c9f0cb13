"""Reading a database image for an export: its catalogue, and rows in their storage classes."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import apsw
from msgspec import Struct

from mcp_backup.errors import NotExportable
from mcp_backup.sources.sql_literals import Text, Value, name

PRAGMAS = ("page_size", "auto_vacuum", "encoding", "user_version", "application_id")

_VIRTUAL = re.compile(r"\s*create\s+virtual\s+table\b", re.IGNORECASE)


class Object(Struct, frozen=True):
    """A row of the catalogue. `sql` is None for indexes that a constraint implies."""

    type: str
    name: str
    table: str
    sql: str | None


def opened(image: Path) -> apsw.Connection:
    """Open an image that nobody writes, as it is, whatever lies beside it."""
    uri = f"file:{quote(os.fsencode(image.absolute()))}?immutable=1"
    return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def catalogue(database: apsw.Connection) -> list[Object]:
    """Return the whole schema in the order of the catalogue."""
    rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid")
    return [Object(*row) for row in rows]


def is_virtual(item: Object) -> bool:
    """Say whether it is a virtual table."""
    return item.type == "table" and _VIRTUAL.match(item.sql or "") is not None


def stored_columns(database: apsw.Connection, table: str) -> list[str]:
    """Return the columns that a row is inserted with: all but generated ones, and the rowid.

    The rowid comes first, under a name that no column takes, where the table has one that is not
    a column already. Where columns take all its names, nothing can name it, nor miss it.
    """
    listed = list(database.execute(f"PRAGMA table_xinfo({name(table)})"))
    columns = [str(row[1]) for row in listed if row[6] not in (2, 3)]
    taken = {str(row[1]).lower() for row in listed}
    free = [alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken]
    if not free or _has_no_rowid(database, table) or _has_rowid_column(database, table, listed):
        return columns
    return [free[0], *columns]


def _has_no_rowid(database: apsw.Connection, table: str) -> bool:
    found = database.execute("SELECT wr FROM pragma_table_list(?) WHERE schema='main'", (table,))
    return any(wr for (wr,) in found)


def _has_rowid_column(
    database: apsw.Connection, table: str, listed: Sequence[Sequence[object]]
) -> bool:
    """Say whether a column is the rowid: the one of the primary key, unless that has an index."""
    keys = [row for row in listed if row[5]]
    if len(keys) != 1 or str(keys[0][2]).upper() != "INTEGER":
        return False
    indexes = database.execute(f"PRAGMA index_list({name(table)})")
    return all(row[3] != "pk" for row in indexes)


def rows(database: apsw.Connection, table: str, columns: Sequence[str]) -> Iterator[list[Value]]:
    """Read a table in the order of its key."""
    for row in raw_rows(database, table, columns):
        yield [
            Text(value) if kind == "text" and isinstance(value, bytes) else value
            for kind, value in zip(row[::2], row[1::2], strict=True)
        ]


def raw_rows(database: apsw.Connection, table: str, columns: Sequence[str]) -> apsw.Cursor:
    """Read a table in the order of its key: for each column its type, then its value.

    Text comes as bytes, in the database's encoding.
    """
    exact = ",".join(
        f"typeof({column}),CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) "
        f"ELSE {column} END"
        for column in map(name, columns)
    )
    return database.execute(f"SELECT {exact} FROM {name(table)} NOT INDEXED")


def refused(subject: str, why: str) -> NotExportable:
    """Word why SQL cannot carry something exactly."""
    return NotExportable(
        f"{subject} cannot be carried by SQL exactly: {why}",
        hint="Export with `--format tar`, which carries the database file itself. "
        "No SQL file was left behind.",
    )
