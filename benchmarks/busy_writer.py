"""A process that writes to a database all the time, and tells how long it was held up at most.

    python -m benchmarks.busy_writer DATABASE

One small transaction every 2 ms, as an agent's server does under load. For each line it reads on
its input it writes one: the longest transaction since the last line, in milliseconds, and their
number. It ends with its input.
"""

import sqlite3
import sys
import threading
import time

_PAUSE = 0.002


class _Longest:
    """The longest transaction so far, and how many there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._longest, self._count = 0.0, 0

    def add(self, seconds: float) -> None:
        with self._lock:
            self._longest, self._count = max(self._longest, seconds), self._count + 1

    def taken(self) -> tuple[float, int]:
        with self._lock:
            taken = self._longest, self._count
            self._longest, self._count = 0.0, 0
            return taken


def _write(path: str, longest: _Longest) -> None:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    last = connection.execute("SELECT max(id) FROM conversations").fetchone()[0]
    row = 0
    while True:
        row = (row * 7919 + 104_729) % last + 1
        began = time.perf_counter()
        connection.execute("UPDATE conversations SET balance = balance + 1 WHERE id = ?", (row,))
        longest.add(time.perf_counter() - began)
        time.sleep(_PAUSE)


def main() -> None:
    """Write until the input ends."""
    longest = _Longest()
    threading.Thread(target=_write, args=(sys.argv[1], longest), daemon=True).start()
    for _ in sys.stdin:
        seconds, count = longest.taken()
        print(f"{seconds * 1000:.3f} {count}", flush=True)


if __name__ == "__main__":
    main()
