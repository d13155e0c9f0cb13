"""`make bench`: measure mcp-backup beside restic and borg, and write results.md and results.svg."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import life, memory_database
from benchmarks.growth import SNAPSHOTS, Growth
from benchmarks.growth_report import growth_svg
from benchmarks.life import Life, Say
from benchmarks.plot import svg
from benchmarks.processes import ProgramFailed
from benchmarks.programs import BORG, RESTIC, found
from benchmarks.pruning import Pruning
from benchmarks.report import markdown, surroundings
from benchmarks.results import Results
from benchmarks.surroundings import Surroundings

_HERE = Path(__file__).parent
_PARTS = ("first", *life.STEPS, "list", "start", "stall", "prune", "sizes", "counts")


def main(words: Sequence[str]) -> None:
    """Do what the words say; what is left out is said to be."""
    arguments = _parsed(words)
    for peer in (RESTIC, BORG):
        found(peer)
    arguments.work.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), Results()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f}  {line}", file=sys.stderr, flush=True)

    growth = Growth(arguments.work / "run", say)
    database = arguments.database or _generated(arguments.work, arguments.megabytes, say)
    about = surroundings(words, arguments.rounds, database)
    parts = arguments.only or _PARTS
    _measure(arguments, database, parts, results, say)
    _grow(arguments, database, parts, growth, say)
    if left_out := [part for part in _PARTS if part not in parts]:
        about.append(f"left out: {', '.join(left_out)}")
    about.append(f"it took {(time.monotonic() - began) / 60:.1f} minutes")
    report = markdown(results, about, arguments.days, growth)
    print(report)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.md").write_text(report)
    title = f"A live SQLite database of {database.stat().st_size / 1e6:,.0f} MB"
    (arguments.out / "results.svg").write_text(svg(results, title, arguments.days))
    if growth.sizes or growth.counts:
        (arguments.out / "growth.svg").write_text(growth_svg(growth))


def _measure(
    arguments: argparse.Namespace,
    database: Path,
    parts: Sequence[str],
    results: Results,
    say: Say,
) -> None:
    steps = [step for step in life.STEPS if step in parts]
    run = arguments.work / "run"
    if steps or "first" in parts:
        Life(database, run, arguments.rounds, arguments.days, steps, results, say).run()
    around = Surroundings(database, run, arguments.rounds, results, say)
    if "list" in parts:
        around.listing()
    if "start" in parts:
        around.starting()
    if "stall" in parts:
        around.stalling()
    if "prune" in parts:
        Pruning(run, arguments.rounds, results, say).run()
    shutil.rmtree(run, ignore_errors=True)


def _grow(
    arguments: argparse.Namespace,
    database: Path,
    parts: Sequence[str],
    growth: Growth,
    say: Say,
) -> None:
    if "sizes" in parts:
        others = [_generated(arguments.work, size, say) for size in arguments.sizes]
        growth.measure_sizes([*others, database])
    if "counts" in parts:
        growth.measure_counts([count for count in SNAPSHOTS if count <= arguments.most])
    shutil.rmtree(arguments.work / "run", ignore_errors=True)


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the database")
    parser.add_argument("--rounds", type=int, default=3, help="what the median is taken of")
    parser.add_argument("--days", type=int, default=10, help="days of edits in the last round")
    parser.add_argument(
        "--only", action="append", choices=_PARTS, help="only this; may be given several times"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        default=[100],
        help="other sizes, to see how cost grows",
    )
    parser.add_argument("--most", type=int, default=10_000, help="the most snapshots to list")
    parser.add_argument("--database", type=Path, help="a database to copy, instead of a new one")
    parser.add_argument("--work", type=Path, default=_HERE / ".work", help="where to work")
    parser.add_argument("--out", type=Path, default=_HERE, help="where the results go")
    return parser.parse_args(words)


def _generated(work: Path, megabytes: int, say: Say) -> Path:
    """Make the database, or take the one that an earlier run made; the same seed, the same rows."""
    database = work / f"memory-{megabytes}.db"
    if not database.exists():
        say(f"making a database of {megabytes} MB")
        unfinished = database.with_suffix(".unfinished")
        for left in work.glob(f"{unfinished.name}*"):
            left.unlink()
        memory_database.make(unfinished, megabytes)
        unfinished.rename(database)
    return database


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ProgramFailed as error:
        sys.exit(f"benchmarks: {error}")
