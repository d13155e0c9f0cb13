"""What surrounds the backups: listing many, starting the server, and the writer who goes on."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.growth import add_snapshots, fresh, small
from benchmarks.processes import Run, measured
from benchmarks.programs import OURS, RESTIC, Ours, Restic
from benchmarks.results import Results
from benchmarks.server_session import server_session, time_to_tools
from mcp_backup.opening import opened
from mcp_backup.settings import load_settings

SNAPSHOTS = 1_000
MANY = 10_000
RUNS = 10_000
_STALLS = 2  # the longest of each counts, and a backup has hundreds of transactions
_STARTS = 5  # starts and short calls are many, since each is short and so noisy
_IMPORTS = (  # what `list` has loaded when it ends, by the modules that load the others
    "import gc; gc.disable(); import mcp_backup.cli.app, mcp_backup.cli.backups; "
    "import mcp_backup.opening, mcp_backup.judging, anyio._backends._asyncio"
)
_PAUSE = 0.5  # seconds: the writer has begun


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The measurements that need no large database of their own, and the one of the writer."""

    database: Path  # never written to
    work: Path
    rounds: int
    results: Results
    say: Callable[[str], None]

    def listing(self) -> None:
        """List 1,000 snapshots: ours and restic on the same repository."""
        self.say(f"listing {SNAPSHOTS} snapshots")
        ours = small(self.work / "listing")
        asyncio.run(_filled(ours))
        restic = Restic(ours.home.parent / "restic", ours.home, ours.home / "repository")
        restic.environment["RESTIC_PASSWORD"] = (ours.home / "key").read_text().strip()
        for number in range(max(self.rounds, 3) + 1):
            ours.watch = restic.watch = not number  # which also fills restic's cache
            self.results.add_run("list", OURS, ours.run("list"))
            self.results.add_run("list", RESTIC, restic.snapshots())
        with server_session(ours.command("serve"), ours.environment, ours.home) as session:
            session.begin()
            session.call("list_backups")
            session.call("create_backup", backup_type="incremental", verify=False)
            session.call("backup_status")  # looks around, once an hour
            for _ in range(_STARTS):
                self.results.add("server list", OURS, session.call("list_backups"))
                self.results.add("server status", OURS, session.call("backup_status"))
            for _ in range(_STARTS):
                unchanged = session.call("create_backup", backup_type="incremental", verify=False)
                self.results.add("server unchanged", OURS, unchanged)
                self.results.add("server list after", OURS, session.call("list_backups"))
        asyncio.run(add_snapshots(ours, SNAPSHOTS, MANY))
        with server_session(ours.command("serve"), ours.environment, ours.home) as session:
            session.begin()
            session.call("list_backups")
            session.call("backup_status")
            for _ in range(_STARTS):
                self.results.add("server list many", OURS, session.call("list_backups"))
                self.results.add("server status many", OURS, session.call("backup_status"))

    def starting(self) -> None:
        """Start our server and a bare one in turn, until each has told its tools."""
        self.say("starting servers")
        ours = small(self.work / "starting")
        bare = [sys.executable, "-m", "benchmarks.bare_server"]
        environment = {**ours.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
        for _ in range(_STARTS):
            for row, command in (("", ours.command("serve")), (" bare", bare)):
                seconds, memory = time_to_tools(command, environment, ours.home)
                self.results.add(f"start{row}", OURS, seconds)
                self.results.add(f"start memory{row}", OURS, memory)
            program = ours.command("create")[0]
            for row, command in (
                ("imports", [sys.executable, "-c", _IMPORTS]),
                ("terminal", [program, "--version"]),
                ("interpreter", [sys.executable, "-c", "pass"]),
            ):
                self.results.add(row, OURS, self._run(ours, command).seconds)

    def stalling(self) -> None:
        """Back up under a busy writer, and see how long its transactions took at most."""
        for _ in range(min(self.rounds, _STALLS)):
            self.say("backing up under a busy writer")
            directory = fresh(self.work / "stalling")
            live = directory / "live"
            live.mkdir()
            shutil.copyfile(self.database, live / "memory.db")
            ours = Ours(directory / "ours", live)
            ours.create_repository()
            with _writing(live / "memory.db") as longest:
                time.sleep(_PAUSE)
                longest()
                run = ours.first()
                self.results.add("stall", OURS, longest())
                time.sleep(run.seconds)
                self.results.add("stall alone", OURS, longest())
            shutil.rmtree(directory)

    def _run(self, ours: Ours, command: list[str]) -> Run:
        return measured(command, ours.environment, ours.home)


async def _filled(ours: Ours) -> None:
    await add_snapshots(ours, 1, SNAPSHOTS)
    settings = load_settings(ours.config, ours.environment, ours.home)
    async with opened(settings) as engine:
        history = engine.state / "history.db"
    _add_runs(history)


def _add_runs(history: Path) -> None:
    """Put the first run on record again and again, an hour apart."""
    shared = "verb, subject, slot, attempt, door, client, version, tool, token, outcome, backup_id"
    counted = "read, added, stored, duration"
    with closing(sqlite3.connect(history)) as connection, connection:
        for number in range(1, RUNS):
            connection.execute(
                f"INSERT INTO runs ({shared}, {counted}, begun, ended) "
                f"SELECT {shared}, {counted}, begun - ?1, ended - ?1 FROM runs WHERE id = 1",
                (number * 3_600_000_000,),
            )
        connection.execute(
            "INSERT INTO sources SELECT runs.id, component, name, sources.outcome, sources.read, "
            "sources.added, sources.duration, findings, sources.message "
            "FROM runs, sources WHERE sources.run = 1 AND runs.id > 1"
        )


@contextmanager
def _writing(database: Path) -> Iterator[Callable[[], float]]:
    """Write all the time; provide a question: the longest transaction since it was last asked."""
    command = [sys.executable, "-m", "benchmarks.busy_writer", str(database)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answers = process.stdin, process.stdout

        def longest() -> float:
            asking.write("\n")
            asking.flush()
            milliseconds, _ = answers.readline().split()
            return float(milliseconds) / 1000

        try:
            yield longest
        finally:
            asking.close()
            process.wait(10)
