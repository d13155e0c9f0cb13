"""Run a program to its end: how long it took, its processor time, its memory with all children.

Memory is the sum of PSS (proportional set size: shared pages are divided among those who map
them) over the whole process tree, read from /proc/*/smaps_rollup every 50 ms; the peak of that.
Peaks shorter than that are missed. Looking costs up to 5 ms each time, so a run that is watched
is not one that is timed. Linux only.
"""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.05  # seconds between two looks at memory


class ProgramFailed(Exception):
    """A program that is measured ended badly; its output is the message."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took: seconds on the clock and of processors, bytes of memory at the peak.

    The bytes are 0 where nobody watched.
    """

    seconds: float
    cpu_seconds: float
    peak_memory: int


def measured(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, *, watch: bool = False
) -> Run:
    """Run the command in the directory and measure it; with `watch`, its memory.

    What earlier programs left unwritten is written first, so that nobody pays for another.

    Raises:
        ProgramFailed: its status is not 0.
    """
    os.sync()
    output = directory / "output.log"
    with output.open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        memory = _Memory(process.pid)
        with memory if watch else nullcontext():
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        told = output.read_text(errors="replace")[-2000:]
        raise ProgramFailed(f"{' '.join(command)} ended with {process.returncode}:\n{told}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, memory.peak)


class _Memory:
    """Watches the memory of a process tree in a thread, for the duration of a block."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, tree_memory(self._pid))
            self._ended.wait(_INTERVAL)


def tree_memory(pid: int) -> int:
    """Return the PSS in bytes of a process and everything below it, as it is now.

    A child that is still its parent's image, between vfork and exec, runs in its parent's memory,
    which counts once: it has its parent's command and name. (A forked worker has its own name.)
    """
    total, waiting = 0, [(pid, (b"", b""))]
    while waiting:
        pid, above = waiting.pop()
        try:
            known = _read(pid, "cmdline"), _read(pid, "comm")
            total += _pss(pid) if known != above else 0
            for thread in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                waiting += ((int(child), known) for child in text.split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return total


def _read(pid: int, file: str) -> bytes:
    return Path(f"/proc/{pid}/{file}").read_bytes()


def own_memory(pid: int) -> int:
    """Return the bytes of a process that belong to no file: heap and stacks.

    Unlike PSS it does not change with what other processes share its libraries by now.
    """
    return _rolled_up(pid, "Anonymous:")


def _pss(pid: int) -> int:
    return _rolled_up(pid, "Pss:")


def _rolled_up(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def tree_size(directory: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(directory)
        for name in names
    )
