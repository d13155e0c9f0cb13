"""Drill until killed: ROOT HOME PORT DATABASE."""

import sys
from pathlib import Path

import anyio

from mcp_backup.opening import opened
from mcp_backup.proof.drill import drill
from tests.postgres.conftest import Live, Server


async def main(live: Live) -> None:
    async with opened(live.settings()) as engine:
        await drill(engine)


if __name__ == "__main__":
    root, home, port, name = sys.argv[1:]
    anyio.run(main, Live(Server(Path(home), Path("/"), int(port)), name, Path(root)))
