"""What a day of edits costs on PostgreSQL: added bytes, beside restic on dumps of the same moment.

    python -m benchmarks.postgres --host /var/run/postgresql --user postgres

makes a database of its own on a running server, fills it, and drops it in the end. 0.1 % of the
rows are then updated in scattered places, and after that as many are inserted.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.edits import Save, settings_for, tell
from benchmarks.programs import RESTIC, found
from mcp_backup.settings_sections import DatabaseSettings
from mcp_backup.settings_table import checked

_DATABASE = "mcp_backup_benchmark"
_WORDS = "a memory of some length, as agents keep them, with words that come again and again"
_MADE = (
    "CREATE TABLE memories (id int PRIMARY KEY, text text NOT NULL, weight real NOT NULL); "
    "INSERT INTO memories SELECT n, md5(n::text) || ' {words} ' || md5((-n)::text), n * 0.5 "
    "FROM generate_series(1, {rows}) n"
)
_UPDATED = "UPDATE memories SET weight = weight + 1 WHERE id % 1000 = 7"
_INSERTED = (
    "INSERT INTO memories SELECT {rows} + n, md5(n::text) || ' new', 1 "
    "FROM generate_series(1, {rows} / 1000) n"
)
_DUMPS = {"restic, pg_dump -Fc -Z0": ["-Z0"], "restic, pg_dump -Fc": []}


def main(words: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", required=True)
    parser.add_argument("--rows", type=int, default=500_000)
    arguments = parser.parse_args(words)
    found(RESTIC)
    place = ["-h", arguments.host, "-p", str(arguments.port), "-U", arguments.user]

    def sql(statement: str, database: str = _DATABASE) -> None:
        command = ["psql", *place, "-qX", "-v", "ON_ERROR_STOP=1", "-d", database]
        subprocess.run([*command, "-c", statement], check=True, stdout=subprocess.DEVNULL)

    work = Path(tempfile.mkdtemp(prefix="benchmark-"))
    sql(f"CREATE DATABASE {_DATABASE}", "postgres")
    try:
        sql(_MADE.format(words=_WORDS, rows=arguments.rows))
        steps = {"first": "SELECT", "unchanged": "SELECT", "0.1 % updated": _UPDATED}
        steps["0.1 % inserted"] = _INSERTED.format(rows=arguments.rows)
        _measure(arguments, work, place, steps, sql)
    finally:
        sql(f"DROP DATABASE {_DATABASE} WITH (FORCE)", "postgres")
        shutil.rmtree(work)


def _measure(
    arguments: argparse.Namespace,
    work: Path,
    place: Sequence[str],
    steps: dict[str, str],
    sql: Callable[[str], None],
) -> None:
    source = checked(
        DatabaseSettings,
        {
            "name": "bench",
            "kind": "postgres",
            "host": arguments.host,
            "port": arguments.port,
            "user": arguments.user,
            "dbname": _DATABASE,
        },
    )

    def dumped(*options: str) -> Save:
        command = ["pg_dump", *place, "-Fc", *options, _DATABASE]
        return lambda directory: subprocess.run(
            [*command, "-f", str(directory / "bench.dump")], check=True
        )

    tell(
        work,
        settings_for(work, source),
        {step: partial(sql, statement) for step, statement in steps.items()},
        {name: dumped(*options) for name, options in _DUMPS.items()},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
