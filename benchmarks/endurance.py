"""Does a server stay as small as it began? Thousands of calls and backups, and a look in between.

    python -m benchmarks.endurance                              10,000 calls, 1,000 backups
    python -m benchmarks.endurance --calls 300 --backups 20     what CI runs

One server on stdio answers tool calls of every kind that changes nothing, refusals among them,
and then makes backups, each of a file that changed. After every hundredth part of either, its
memory (what belongs to no file), descriptors and threads are looked at. What a call leaves behind
shows as a slope over the second half, when everything that is loaded once has been loaded; the
program ends with 1 where that is more than noise. A backup may cost what the list of backups
and the index of blobs need for it, while it is there: in the end all but the newest are dropped,
by another process, and as many are made again, which must find room in what those took. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import linear_regression

from benchmarks.processes import ProgramFailed, own_memory
from benchmarks.server_session import ServerSession, server_session

_LOOKS = 100
_CALL_BYTES = 256  # a reference kept in a list is 8, an object kept with it some hundred
_BACKUP_BYTES = 8 << 10  # tracemalloc tells 4,000: snapshot, outline, verdict, ids of its files
_NOISE_BYTES = 3 << 20  # of an allocator over a round, whatever was done in it


@dataclass(frozen=True, slots=True)
class Look:
    """The server at one moment: after how many calls, and what it holds."""

    done: int
    memory: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Round:
    """One round of calls: its slopes per call over the second half, and whether they are flat."""

    name: str
    calls: int
    seconds: float
    first: Look
    last: Look
    bytes_per_call: float
    flat: bool


def endure(calls: int, backups: int, directory: Path) -> list[Round]:
    """Start a server on a small project in `directory`, and put it through all rounds."""
    environment = _prepared(directory)
    command = (sys.executable, "-m", "mcp_backup", "serve")
    with server_session(command, environment, directory) as session:
        session.begin()
        _back_up(session, directory, 0)
        rounds = [
            _round("calls", calls, session, _CALL_BYTES, lambda n: _ask(session, n)),
            _round(
                "backups",
                backups,
                session,
                _BACKUP_BYTES,
                lambda n: _back_up(session, directory, n),
            ),
        ]
        _forget(environment)
        again = _round(
            "backups again",
            backups,
            session,
            _BACKUP_BYTES,
            lambda n: _back_up(session, directory, backups + n),
        )
        return [*rounds, _in_the_same_room(again, rounds[1])]


def _prepared(directory: Path) -> dict[str, str]:
    (directory / "settings.toml").write_text("port = 1\n")
    (directory / "mcp-backup.toml").write_text(
        '[repository]\nlocation = "backups"\npassword_file = "backups.key"\n'
        '[[config]]\nname = "project"\nroot = "."\ninclude = ["settings.toml"]\n'
        "[schedule]\nenabled = false\n"
        "[retention]\ndaily = 1\nweekly = 0\nmonthly = 0\nminimum = 1\n"
    )
    environment = dict(os.environ) | {
        "MCP_BACKUP_STATE_DIR": str(directory / "state"),
        "MCP_BACKUP_CONFIG": str(directory / "mcp-backup.toml"),
    }
    script = "import anyio, os; from pathlib import Path\n"
    script += "from mcp_backup.opening import initialise\n"
    script += "from mcp_backup.settings import load_settings\n"
    script += "anyio.run(initialise, load_settings(None, os.environ, Path()))"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    return environment


def _ask(session: ServerSession, number: int) -> None:
    """Make one of the calls that change nothing; every fifth is refused."""
    match number % 5:
        case 0:
            session.call("list_backups", limit=5)
        case 1:
            session.call("backup_status")
        case 2:
            session.call("verify_backup", level="structure")
        case 3:
            session.call("list_backups", source="project", backup_type="config")
        case _:
            _refused(session)


def _refused(session: ServerSession) -> None:
    try:
        session.call("verify_backup", backup_id="backup_20200101_000000")
    except ProgramFailed:
        return
    raise ProgramFailed("a backup that does not exist was verified")


def _back_up(session: ServerSession, directory: Path, number: int) -> None:
    (directory / "settings.toml").write_text(f"port = {number}\n")
    os.utime(directory / "settings.toml", (1_700_000_000, 1_700_000_000 + number))
    session.call("create_backup", backup_type="config", verify=False)


def _forget(environment: Mapping[str, str]) -> None:
    """Drop all backups but the newest, as a person does in a terminal."""
    command = (sys.executable, "-m", "mcp_backup", "forget", "--yes")
    subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.DEVNULL)


def _in_the_same_room(again: Round, before: Round) -> Round:
    """Judge a round by where it ends, beside the same round before: a leak would add to it."""
    fits = again.last.memory - before.last.memory <= _NOISE_BYTES
    fits = fits and again.last.descriptors <= before.last.descriptors
    return replace(again, flat=fits)


def _round(
    name: str, calls: int, session: ServerSession, allowed: int, call: Callable[[int], None]
) -> Round:
    began, looks = time.perf_counter(), []
    for number in range(calls):
        call(number + 1)
        if number % max(calls // _LOOKS, 1) == 0:
            looks.append(_look(session, number + 1))
    looks.append(_look(session, calls))
    late = looks[len(looks) // 2 :]
    slope = linear_regression([look.done for look in late], [look.memory for look in late]).slope
    grown = slope * (late[-1].done - late[0].done)
    few = max(look.descriptors for look in late) <= max(
        look.descriptors for look in looks[: len(looks) // 2]
    )
    flat = few and (slope <= allowed or grown <= _NOISE_BYTES)
    seconds = round(time.perf_counter() - began, 1)
    return Round(name, calls, seconds, looks[0], looks[-1], round(slope, 1), flat)


def _look(session: ServerSession, done: int) -> Look:
    place = f"/proc/{session.pid}"
    return Look(
        done,
        own_memory(session.pid),
        len(os.listdir(f"{place}/fd")),
        len(os.listdir(f"{place}/task")),
    )


def main(arguments: Sequence[str]) -> int:
    """Run, print one JSON document a round, and say by the exit code whether all were flat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--backups", type=int, default=1_000)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="endurance-") as directory:
        rounds = endure(chosen.calls, chosen.backups, Path(directory))
    for each in rounds:
        sys.stdout.write(json.dumps(asdict(each)) + "\n")
    return 0 if all(each.flat for each in rounds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
