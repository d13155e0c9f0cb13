"""A process that restores or undoes the memories, and kills itself before its nth step.

    python -m tests.duckdb.restore_child ROOT restore|undo N

N = 0 lets it end; it then prints its steps, one a line.
"""

import sys
from pathlib import Path

import anyio

from mcp_backup.restore.journal import Steps
from mcp_backup.verbs import RestoreRequest
from tests.crash.restore_child import killing, undo
from tests.duckdb.system import system_at
from tests.restore.bench import bench
from tests.system import System


async def restore(system: System, step: Steps) -> None:
    async with bench(system, step) as on:
        await on.restore(RestoreRequest(databases=("memories",)))


def main() -> None:
    root, verb, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    taken: list[str] = []
    work = {"restore": restore, "undo": undo}[verb]
    anyio.run(work, system_at(root), killing(at, taken))
    sys.stdout.write("\n".join(taken))


if __name__ == "__main__":
    main()
