"""A process that stops in the middle of a backup and tells which workers it has; to be killed.

python -m tests.crash.wait_in_backup ROOT
"""

import sys
from pathlib import Path

import anyio

from mcp_backup.opening import opened
from mcp_backup.progress import Progress
from mcp_backup.verbs import CreateRequest
from tests.processes import workers
from tests.system import settings_of


async def back_up(root: str, wanted: str) -> None:

    async def stop(progress: Progress) -> None:
        found = workers()
        if len(found) >= int(wanted) and progress.done:
            sys.stdout.write(" ".join(map(str, found)) + "\n")
            sys.stdout.flush()
            await anyio.sleep_forever()

    async with opened(settings_of(Path(root))) as engine:
        await engine.create(CreateRequest(verify=False), stop)


if __name__ == "__main__":
    anyio.run(back_up, sys.argv[1], sys.argv[2])
