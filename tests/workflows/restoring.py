"""A process that restores the newest backup: python -m tests.workflows.restoring ROOT STATE URL."""

import sys
from pathlib import Path

import anyio

from mcp_backup.opening import opened
from mcp_backup.verbs import RestoreRequest
from tests.workflows.conftest import Keeper


async def main(keeper: Keeper) -> None:
    async with opened(keeper.settings()) as engine:
        plan = await engine.plan_restore(RestoreRequest())
        await engine.restore(plan.plan_id, consent=True)


if __name__ == "__main__":
    anyio.run(main, Keeper(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
