"""Asking a staged SQLite database one question: read-only, bounded in time, one value.

The query is the owner's; what it runs on may be hostile. So nothing but reading is authorised,
of this file alone, and the file is opened as immutable.
"""

from pathlib import Path
from time import monotonic

import apsw

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.sqlite_examine import only_file
from mcp_backup.sources.sqlite_reading import connected

_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_READING = frozenset(
    (apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_RECURSIVE, apsw.SQLITE_FUNCTION)
)
_PRAGMAS = frozenset(("data_version", "integrity_check", "quick_check", "foreign_key_check"))


def value_of(directory: Path, query: str, seconds: float) -> int | float | str | None:
    """Return the first value that `query` gives on the one database in `directory`.

    Raises:
        SourceUnreadable: the query is refused, fails, gives no row, or takes too long.
    """
    connection = connected(only_file(directory), query="?immutable=1")
    end = monotonic() + seconds
    try:
        connection.set_progress_handler(lambda: monotonic() > end, _STEPS)
        connection.authorizer = _authorised
        row = next(iter(connection.execute(query)), None)
    except apsw.InterruptError as error:
        raise SourceUnreadable(f"it took longer than {seconds:g} seconds") from error
    except apsw.AuthError as error:
        raise SourceUnreadable("it is refused, as it does more than read") from error
    except apsw.Error as error:
        raise SourceUnreadable(f"it fails: {error}") from error
    finally:
        connection.close()
    if not row:
        raise SourceUnreadable("it gives no row")
    value = row[0]
    return value if isinstance(value, int | float | str) else None


def _authorised(
    operation: int, one: str | None, two: str | None, _database: str | None, _by: str | None
) -> int:
    if operation == apsw.SQLITE_FUNCTION and two and two.lower() == "load_extension":
        return apsw.SQLITE_DENY
    if operation in _READING:
        return apsw.SQLITE_OK
    if operation == apsw.SQLITE_PRAGMA and one in _PRAGMAS:
        return apsw.SQLITE_OK
    return apsw.SQLITE_DENY
