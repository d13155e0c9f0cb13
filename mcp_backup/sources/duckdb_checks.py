"""Asking a staged DuckDB database one question: read-only, bounded in time, one value."""

from pathlib import Path

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.duckdb_asking import Fault, ask
from mcp_backup.sources.duckdb_file import below

_STARTING = 5.0  # seconds that DuckDB may take before the query begins


def value_of(directory: Path, query: str, seconds: float) -> int | float | str | None:
    """Return the first value that `query` gives on the one database in `directory`.

    Raises:
        SourceUnreadable: there are several, or the query fails, gives no row, or takes too long.
    """
    found = list(below(directory))
    if len(found) != 1:
        raise SourceUnreadable(f"it is asked of one database, and there are {len(found)}")
    try:
        value = ask("", "value", found[0].path, query, seconds=seconds + _STARTING)["value"]
    except Fault as fault:
        raise SourceUnreadable(f"it fails: {fault}") from fault
    return value if isinstance(value, int | float | str) else None
