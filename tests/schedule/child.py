"""A process that runs the schedule: every two seconds one database is due.

python -m tests.schedule.child ROOT
"""

import logging
import sys
from datetime import timedelta
from pathlib import Path

import anyio

from mcp_backup.schedule import Timing, run_schedule
from mcp_backup.slots import Schedule
from mcp_backup.verbs import BackupType, CreateRequest
from tests.system import System, settings_of

EVERY = Schedule(
    "databases 2s", timedelta(seconds=2), CreateRequest(BackupType.DATABASE, ("notes",))
)


async def main(root: Path) -> None:
    async with System(root, settings_of(root)).engine() as engine:
        await run_schedule(engine, [EVERY], Timing(pulse=0.2))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    anyio.run(main, Path(sys.argv[1]))
