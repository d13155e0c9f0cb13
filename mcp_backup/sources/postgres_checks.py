"""Asking a drill's PostgreSQL database one question: read-only, bounded in time, one value."""

from decimal import Decimal
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.postgres_ours import read_record
from mcp_backup.sources.postgres_server import Connection, connected, do
from mcp_backup.sources.source import SourceSpec


def value_in(
    spec: SourceSpec, directory: Path, query: str, seconds: float
) -> int | float | str | None:
    """Return the first value that `query` gives in the database written down in `directory`.

    A cursor is declared for it, which the server does for one statement that only reads.

    Raises:
        SourceUnreadable: the query is refused, fails, gives no row, or takes too long.
    """
    name = read_record(directory).name
    with connected(spec, name) as connection:
        try:
            row = _first(connection, query, max(1, int(seconds * 1000)))
        except psycopg.errors.QueryCanceled as error:
            raise SourceUnreadable(f"it took longer than {seconds:g} seconds") from error
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise SourceUnreadable("it is refused, as it does more than read") from error
        except psycopg.Error as error:
            raise SourceUnreadable(f"it fails: {_said(error)}") from error
    if not row:
        raise SourceUnreadable("it gives no row")
    value = float(row[0]) if isinstance(row[0], Decimal) else row[0]
    return value if isinstance(value, int | float | str) else None


def _first(connection: Connection, query: str, milliseconds: int) -> TupleRow | None:
    with connection.transaction():
        do(connection, "SET TRANSACTION READ ONLY")
        do(connection, "SET LOCAL statement_timeout = {limit}", limit=milliseconds)
        with connection.cursor("mcp_backup_check") as cursor:
            return cursor.execute(query.encode()).fetchone()


def _said(error: psycopg.Error) -> str:
    """Say what the server said, unless values of rows may be in it."""
    about_the_query = (error.sqlstate or "").startswith("42")
    told = error.diag.message_primary if about_the_query else None
    return f"{told:.200}" if told else type(error).__name__
