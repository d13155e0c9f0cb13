"""What was measured, by row and program, and the order in which it is told."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.processes import Run
from benchmarks.programs import BORG, OURS, RESTIC

BARE = "bare SDK"
PROGRAMS = (OURS, RESTIC, BORG)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what, in which unit, and the ratio wanted against restic."""

    title: str
    unit: str  # s, ms, MB
    wanted: float | None = None


ROWS: Mapping[str, Row] = {
    "first": Row("first backup", "s", 0.40),
    "first size": Row("… repository after it", "MB"),
    "unchanged": Row("nothing changed", "s", 0.2),
    "changed": Row("after 1,500 edits and 2,000 inserts", "s", 0.2),
    "changed size": Row("… added to the repository", "MB", 0.05),
    "days size": Row("repository after {days} such days", "MB", 0.25),
    "stage": Row("restore: bytes into a new file", "s", 0.6),
    "scratch": Row("restore beside the live data, of a verified backup", "s"),
    "live": Row("restore into the live database, undo point, of a verified backup", "s", 1.0),
    "live unproven": Row("… of one that was not verified, examined", "s"),
    "check": Row("check of all data", "s", 1.0),
    "prune": Row("prune after forgetting half of 100 snapshots", "s", 1.0),
    "prune size": Row("… repository after it", "MB"),
    "list": Row("list, 1,000 snapshots, from the terminal", "s"),
}
CPU: Mapping[str, Row] = {f"{key} cpu": Row(row.title, "s") for key, row in ROWS.items()}
MEMORY: Mapping[str, Row] = {f"{key} memory": Row(row.title, "MB") for key, row in ROWS.items()}

ALONE: Mapping[str, Row] = {  # without a peer to divide by, or with another one
    "server list": Row("list_backups, first page of 1,000, in a running server", "ms"),
    "server list after": Row("… when a backup was made since the last", "ms"),
    "server status": Row("backup_status, 10,000 runs on record, in a running server", "ms"),
    "server list many": Row("list_backups, first page of 10,000, in a running server", "ms"),
    "server status many": Row("backup_status, 10,000 snapshots and 10,000 runs", "ms"),
    "server unchanged": Row("create_backup, nothing changed, in a running server", "ms"),
    "start": Row("server start to first tools/list", "ms"),
    "start bare": Row("… the same of a bare MCP SDK server", "ms"),
    "start memory": Row("server's memory after tools/list", "MB"),
    "start memory bare": Row("… of a bare MCP SDK server", "MB"),
    "imports": Row("an interpreter that loads what `list` needs, and ends", "ms"),
    "terminal": Row("`mcp-backup --version`", "ms"),
    "interpreter": Row("… `python -c pass`", "ms"),
    "stall": Row("writer's longest transaction during a first backup", "ms"),
    "stall alone": Row("… in the same time without a backup", "ms"),
}


@dataclass(slots=True)
class Results:
    """Every value that was measured; seconds and bytes."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: str, program: str, value: float) -> None:
        """Keep one value."""
        assert any(row in rows for rows in (ROWS, CPU, MEMORY, ALONE)), row
        self.values[row, program].append(value)

    def add_run(self, row: str, program: str, run: Run) -> None:
        """Keep what a run took: its memory if that was watched, else its time."""
        if run.peak_memory:
            self.add(f"{row} memory", program, run.peak_memory)
        else:
            self.add(row, program, run.seconds)
            self.add(f"{row} cpu", program, run.cpu_seconds)

    def has(self, row: str) -> bool:
        """Tell whether a row was measured for anybody."""
        return any(key == row for key, _ in self.values)

    def median(self, row: str, program: str) -> float | None:
        """Return the median of a row for a program, None if it was not measured."""
        values = self.values.get((row, program))
        return median(values) if values else None

    def ratio(self, row: str, program: str) -> float | None:
        """Return our median divided by a peer's."""
        ours, theirs = self.median(row, OURS), self.median(row, program)
        return ours / theirs if ours is not None and theirs else None
