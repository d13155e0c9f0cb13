"""A process that puts a staged database live, and kills itself before its nth call to the system.

    python -m tests.crash.exchange_child LIVE STAGED N

Counted are the calls by which the exchange changes anything: writes, fsyncs and locks of its own.
N = 0 lets it end; it then prints the calls.
"""

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp_backup.sources import sqlite
from tests.sources.databases import database


def main() -> None:
    live, staged, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    taken: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            taken.append(name)
            if len(taken) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return counting

    os.pwrite = counted("write", os.pwrite)
    os.fsync = counted("fsync", os.fsync)
    fcntl.lockf = counted("lock", fcntl.lockf)
    sqlite.place(database(live), staged)
    sys.stdout.write("\n".join(taken))


if __name__ == "__main__":
    main()
