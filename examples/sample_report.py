"""Make the sample report in docs/: a small system, six weeks of backups and drills, by its clock.

    python examples/sample_report.py docs/sample-report.html

Backups, restores and times are real; only the calendar is told.
"""

import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.opening import initialise, opened
from mcp_backup.place import Place
from mcp_backup.proof.drill import drill
from mcp_backup.proof.report import ReportFacts, gathered, write_report
from mcp_backup.settings import Settings, load_settings
from mcp_backup.verbs import BackupType, CreateRequest

_WEEKS = 6
_SETTINGS = """\
state_dir = "{root}/state"

[repository]
location = "{root}/backups"
password_file = "{root}/backups.key"

[recovery]
start_order = ["akosha", "session-buddy", "crackerjack"]

[[databases]]
name = "session-buddy"
path = "{root}/sessions.db"
checks = [{{ query = "SELECT count(*) FROM notes", expect = ">= 1000" }}]

[[databases]]
name = "akosha"
path = "{root}/memories.db"
checks = [
    {{ query = "SELECT count(*) FROM notes", expect = ">= 1000" }},
    {{ query = "SELECT count(*) FROM search WHERE search MATCH 'note'", expect = ">= 1000" }},
]

[[databases]]
name = "crackerjack"
path = "{root}/quality.db"

[[config]]
name = "mahavishnu"
root = "{root}/settings"
include = ["*.yaml", ".env"]
"""


class _Calendar:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 10, 11, 2, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def _write(path: Path, first: int, rows: int) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT)")
        database.execute("CREATE VIRTUAL TABLE IF NOT EXISTS search USING fts5 (body)")
        texts = [(f"note {number} {'with some words ' * 12}",) for number in range(first, rows)]
        database.executemany("INSERT INTO notes (body) VALUES (?)", texts)
        database.executemany("INSERT INTO search (body) VALUES (?)", texts)


def _make(root: Path) -> Settings:
    for name, rows in {"sessions.db": 20_000, "memories.db": 90_000, "quality.db": 6_000}.items():
        _write(root / name, 0, rows)
    (root / "settings").mkdir()
    (root / "settings/mahavishnu.yaml").write_text("port: 8680\n")
    (root / "settings/.env").write_text("TOKEN=sample\n")
    (root / "mcp-backup.toml").write_text(_SETTINGS.format(root=root))
    return load_settings(root / "mcp-backup.toml", {}, root)


async def _lived(root: Path) -> ReportFacts:
    """Live through the weeks; one backup is late, as it happens."""
    settings, clock = _make(root), _Calendar()
    place = Place("agents.example", "operator", os.environ, clock)
    await initialise(settings, place)
    async with opened(settings, place) as engine:
        for week in range(_WEEKS):
            for day in range(7):
                clock.now = datetime(2026, 10, 11, 2, 0, tzinfo=UTC) + timedelta(
                    weeks=week, days=day, hours=5 if (week, day) == (4, 3) else 0
                )
                if day in (0, 3, 6) or week == _WEEKS - 1:
                    _write(root / "sessions.db", 0, 50)
                await engine.create(
                    CreateRequest(
                        BackupType.INCREMENTAL if day else BackupType.FULL, verify=not day
                    )
                )
            clock.now += timedelta(hours=2)
            await drill(engine, DrillRequest())
        clock.now += timedelta(hours=7)
        return await gathered(engine)


def main(out: Path) -> None:
    """Write the report to `out`."""
    with TemporaryDirectory() as directory:
        write_report(out.absolute(), anyio.run(_lived, Path(directory)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
