"""What a day of edits costs on DuckDB: added bytes, beside restic on copies of the same file.

    python -m benchmarks.duckdb_edits --rows 500000

0.1 % of the rows are updated in scattered places, then as many inserted, then as many deleted;
the file is checkpointed each time, since restic would not see the write-ahead log as a part of it.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from benchmarks.edits import settings_for, tell
from benchmarks.programs import RESTIC, found
from mcp_backup.settings_sections import DatabaseSettings

_MADE = (
    "CREATE TABLE memories AS SELECT n AS id, md5(n::text) || ' a memory of some length, as agents "
    "keep them ' || md5((-n)::text) AS text, random()::float AS weight FROM range({rows}) t(n)"
)
_UPDATED = "UPDATE memories SET text = text || '.' WHERE id % 1000 = 7"
_INSERTED = (
    "INSERT INTO memories "
    "SELECT {rows} + n, md5(n::text) || ' new', 1 FROM range({rows} // 1000) t(n)"
)
_DELETED = "DELETE FROM memories WHERE id % 1000 = 11"


def main(words: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duckdb_edits", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    rows: int = parser.parse_args(words).rows
    found(RESTIC)
    work = Path(tempfile.mkdtemp(prefix="benchmark-"))
    path = work / "bench.duckdb"
    try:
        _run(path, _MADE.format(rows=rows))
        tell(
            work,
            settings_for(work, DatabaseSettings(name="bench", kind="duckdb", path=path)),
            {
                "first": _nothing,
                "unchanged": _nothing,
                "0.1 % updated": _running(path, _UPDATED),
                "0.1 % inserted": _running(path, _INSERTED.format(rows=rows)),
                "0.1 % deleted": _running(path, _DELETED),
            },
            {"restic, the file": lambda directory: shutil.copy2(path, directory)},
        )
    finally:
        shutil.rmtree(work)


def _nothing() -> None:
    """Change nothing."""


def _running(path: Path, statement: str) -> Callable[[], None]:
    return lambda: _run(path, statement)


def _run(path: Path, statement: str) -> None:
    connection = duckdb.connect(str(path))
    try:
        connection.execute(statement)
        connection.execute("CHECKPOINT")
    finally:
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1:])
