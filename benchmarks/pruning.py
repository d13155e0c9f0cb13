"""Prune after forgetting half of 100 snapshots: ours and restic, on copies of one repository."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.growth import fresh
from benchmarks.memory_database import edit, make
from benchmarks.programs import Ours, Restic
from benchmarks.results import Results
from mcp_backup.opening import opened
from mcp_backup.settings import load_settings
from mcp_backup.verbs import BackupType, CreateRequest

SNAPSHOTS = 100
_MEGABYTES = 16  # small enough for 100 backups in a minute
_EDITS, _INSERTS = 150, 200  # between two snapshots


@dataclass(frozen=True, slots=True)
class Pruning:
    """One repository of 100 snapshots, pruned by each program in its own copy of it."""

    work: Path
    rounds: int
    results: Results
    say: Callable[[str], None]

    def run(self) -> None:
        """Measure it, once for each round, and once more for the memory."""
        self.say(f"making {SNAPSHOTS} snapshots to prune")
        directory = fresh(self.work / "pruning")
        live = directory / "live"
        live.mkdir()
        make(live / "memory.db", _MEGABYTES)
        ours = Ours(directory / "ours", live)
        ours.create_repository()
        names = asyncio.run(_snapshots(ours, live / "memory.db"))
        restic = Restic(directory / "restic", live, ours.home / "repository")
        restic.environment["RESTIC_PASSWORD"] = (ours.home / "key").read_text().strip()
        restic.run("forget", *names[::2])
        kept = directory / "kept"
        (ours.home / "repository").rename(kept)
        for number in range(self.rounds + 1):
            ours.watch = restic.watch = not number
            for program in (ours, restic):
                shutil.rmtree(ours.home / "repository", ignore_errors=True)
                shutil.copytree(kept, ours.home / "repository")
                self.results.add_run("prune", program.name, program.prune())
                self.results.add("prune size", program.name, ours.repository_size())
        shutil.rmtree(directory)


async def _snapshots(ours: Ours, database: Path) -> list[str]:
    """Back up 100 times, with edits in between; return the snapshots' ids, oldest first."""
    settings = load_settings(ours.config, ours.environment, ours.home)
    names = []
    async with opened(settings) as engine:
        for number in range(SNAPSHOTS):
            edit(database, seed=number, updates=_EDITS, inserts=_INSERTS)
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            report = await engine.create(CreateRequest(BackupType.DATABASE, verify=False))
            names.append(report.snapshot_id)
    return names
