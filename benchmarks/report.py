"""The results as Markdown: ratios first, absolute medians beside them."""

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.growth import Growth
from benchmarks.growth_report import growth_tables
from benchmarks.programs import BORG, OURS, RESTIC, found, version
from benchmarks.results import ALONE, CPU, MEMORY, PROGRAMS, ROWS, Results, Row
from mcp_backup import __version__

_MISSING = "-"


def markdown(results: Results, about: Sequence[str], days: int, growth: Growth) -> str:
    """Return the whole report."""
    lines = ["# Measured", ""]
    lines += [*(f"* {line}" for line in about), ""]
    lines += ["Ratios are our median divided by the peer's: below 1 is faster or smaller.", ""]
    lines += _table("time and storage", ROWS, results, days)
    lines += _table("processor time, all processes", CPU, results, days)
    lines += _table("peak memory (PSS), all processes", MEMORY, results, days)
    lines += _alone(results)
    lines += ["![the same as bars](results.svg)", ""]
    if grown := growth_tables(growth):
        lines += ["## How cost grows", "", *grown, "![the same as lines](growth.svg)", ""]
    return "\n".join(lines)


def _table(title: str, rows: Mapping[str, Row], results: Results, days: int) -> list[str]:
    """Return a table of the rows that were measured."""
    lines = [
        f"| {title} | of {RESTIC} | wanted | of {BORG} | {' | '.join(PROGRAMS)} |",
        "|---|--:|--:|--:|" + "--:|" * len(PROGRAMS),
    ]
    for key, row in rows.items():
        if results.has(key):
            cells = [
                _ratio(results.ratio(key, RESTIC), strong=row.wanted is not None),
                f"{row.wanted:.2f}" if row.wanted else "",
                _ratio(results.ratio(key, BORG), strong=False),
                *(_value(results.median(key, program), row) for program in PROGRAMS),
            ]
            lines.append(f"| {row.title.format(days=days)} | {' | '.join(cells)} |")
    return [*lines, ""] if len(lines) > 2 else []


def _alone(results: Results) -> list[str]:
    lines = ["| without a peer | median | longest |", "|---|--:|--:|"]
    for key, row in ALONE.items():
        if results.has(key):
            longest = max(results.values[key, OURS])
            cells = f"{_value(results.median(key, OURS), row)} | {_value(longest, row)}"
            lines.append(f"| {row.title} | {cells} |")
    return [*lines, ""] if len(lines) > 2 else []


def _ratio(ratio: float | None, *, strong: bool) -> str:
    if ratio is None:
        return _MISSING
    return f"**{ratio:.2f}**" if strong else f"{ratio:.2f}"


def _value(value: float | None, row: Row) -> str:
    if value is None:
        return _MISSING
    if row.unit == "MB":
        return f"{value / 1e6:,.1f} MB" if value < 1e8 else f"{value / 1e6:,.0f} MB"
    if row.unit == "ms":
        return f"{value * 1e3:,.1f} ms" if value < 0.1 else f"{value * 1e3:,.0f} ms"
    return f"{value:.2f} s"


def surroundings(arguments: Sequence[str], rounds: int, database: Path) -> list[str]:
    """Describe what this runs on, without names of hosts or people."""
    megabytes = os.stat(database).st_size / 1e6
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, `{' '.join(['python -m benchmarks', *arguments])}`",
        f"a generated SQLite database of {megabytes:,.0f} MB in WAL mode, held open by another "
        f"process; median of {rounds}, the programs in turn",
        f"{_processor()}, {os.cpu_count()} processors, {_memory_gigabytes():.0f} GB of memory, "
        f"{platform.system()} {platform.release()}, files on {_filesystem(database.parent)}",
        f"mcp-backup {__version__}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}; {version([found(RESTIC), 'version'])}; "
        f"{version([found(BORG), '--version'])}",
        "memory is the sum of PSS over the process tree, looked at every 50 ms, in a round of its "
        "own that is not timed",
        f"load of the machine when the run began: {os.getloadavg()[0]:.1f}",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _filesystem(directory: Path) -> str:
    """Return the type of the file system that holds a directory."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, name, *_ = line.split()
        if len(place) >= len(best) and directory.resolve().is_relative_to(place):
            best, kind = place, name
    return kind
