"""The life of a backup, lived by each program in turn on the same live database."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory_database import edit
from benchmarks.page_cache import cool, warm
from benchmarks.processes import Run
from benchmarks.programs import OURS, Borg, Ours, Program, Restic
from benchmarks.results import Results

Say = Callable[[str], None]  # tells how far the run is
STEPS = ("unchanged", "changed", "restore", "check", "days")
_SETTLED = 2.1  # seconds after which a file's time tells for sure whether it was written since


@dataclass(frozen=True, slots=True)
class Life:
    """Rounds of first backup, unchanged, changed, restore, check; the last goes on for days.

    One more round comes first, in which memory is watched and no time is taken. Who goes first
    rotates, and each begins on a machine that has rested: on a virtual one the processors and the
    memory that the last program left are not the ones that a program finds after a pause. Each
    finds the live file in the page cache, as its owner's work leaves it (borg drops what it reads),
    and, to restore or to check, nothing of its repository, as a night leaves that.
    """

    database: Path  # never written to
    work: Path
    rounds: int
    days: int
    steps: Sequence[str]
    results: Results
    say: Say

    def run(self) -> None:
        """Measure everything asked for."""
        for number in range(self.rounds + 1):
            self.say(f"round {number} of {self.rounds}" if number else "watching memory")
            directory = self.work / "round"
            shutil.rmtree(directory, ignore_errors=True)
            live = directory / "live"
            live.mkdir(parents=True)
            shutil.copyfile(self.database, live / "memory.db")
            with held_open(live / "memory.db"):
                self._round(directory, live, number)
            shutil.rmtree(directory)

    def _round(self, directory: Path, live: Path, number: int) -> None:
        ours = Ours(directory / "ours", live)
        restic, borg = Restic(directory / "restic", live), Borg(directory / "borg", live)
        named: Sequence[Program] = (ours, restic, borg)
        first = number % len(named)
        programs = (*named[first:], *named[:first])
        for program in programs:
            program.create_repository()
            program.watch = not number
        self._first(programs, live)
        if "unchanged" in self.steps:
            for program in programs:
                self._add("unchanged", program.name, rested(program.unchanged, live))
        if "changed" in self.steps:
            self._changed(programs, live)
        if "restore" in self.steps:
            self._restores(ours, programs, live)
        if "check" in self.steps:
            for program in programs:
                self._add("check", program.name, rested(program.check, live, program.repository))
        if "days" in self.steps and number == self.rounds:
            self._days(programs, live)

    def _first(self, programs: Sequence[Program], live: Path) -> None:
        for program in programs:
            self._add("first", program.name, rested(program.first, live))
            self.results.add("first size", program.name, program.repository_size())

    def _changed(self, programs: Sequence[Program], live: Path) -> None:
        day(live / "memory.db", 1)
        for program in programs:
            before = program.repository_size()
            self._add("changed", program.name, rested(program.changed, live))
            self.results.add("changed size", program.name, program.repository_size() - before)

    def _restores(self, ours: Ours, programs: Sequence[Program], live: Path) -> None:
        staged = {}
        for program in programs:
            staged[program.name] = rested(program.stage, live, program.repository)
            self._add("stage", program.name, staged[program.name])
            shutil.rmtree(ours.home.parent / program.name / "out", ignore_errors=True)
        self._restored("live unproven", ours, ours.restore_live, live)
        ours.verified()
        self._restored("scratch", ours, ours.restore_scratch, live)
        self._restored("live", ours, ours.restore_live, live)
        for row in ("scratch", "live", "live unproven"):  # what a peer does is always the same
            for peer, run in staged.items():
                if peer != OURS:
                    self.results.add_run(row, peer, run)

    def _restored(self, row: str, ours: Ours, restore: Callable[[], Run], live: Path) -> None:
        self._add(row, OURS, rested(restore, live, ours.repository))
        ours.remove_restored()

    def _days(self, programs: Sequence[Program], live: Path) -> None:
        first = 2 if "changed" in self.steps else 1
        for number in range(first, self.days + 1):
            self.say(f"day {number} of {self.days}")
            day(live / "memory.db", number)
            for program in programs:
                program.changed()
        for program in programs:
            self.results.add("days size", program.name, program.repository_size())

    def _add(self, row: str, program: str, run: Run) -> None:
        self.results.add_run(row, program, run)
        told = f"{run.seconds:.2f} s, {run.cpu_seconds:.2f} s of processors"
        if run.peak_memory:
            told = f"{run.peak_memory / 1e6:.0f} MB"
        self.say(f"{row:10} {program:10} {told}")


def rested(run: Callable[[], Run], live: Path, repository: Path | None = None) -> Run:
    """Run a program after a pause, with the live file in the page cache whoever came before.

    Of a repository that is given nothing is, as after a night.
    """
    if repository is not None:
        cool(repository)
    warm(live / "memory.db")
    time.sleep(_SETTLED)
    return run()


@contextmanager
def held_open(database: Path) -> Iterator[None]:
    """Keep the database open, so that it is live: its WAL stays, its holder must survive."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    try:
        yield
    finally:
        connection.close()


def day(database: Path, number: int) -> None:
    """Do a day's edits, and have all of it in the main file, since the peers read only files."""
    edit(database, seed=1000 + number)
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    time.sleep(_SETTLED)
