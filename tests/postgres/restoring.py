"""Restore or undo, and be killed before a step: ROOT HOME PORT DATABASE VERB STEP."""

import os
import signal
import sys
from pathlib import Path

import anyio

from mcp_backup.catalog import Catalog
from mcp_backup.opening import opened
from mcp_backup.place import utc_now
from mcp_backup.restore.examining import Means
from mcp_backup.restore.plan import Origin
from mcp_backup.restore.restorer import Restorer
from mcp_backup.restore.rules import Rules
from mcp_backup.verbs import RestoreRequest
from tests.postgres.conftest import Live, Server


async def main(live: Live, verb: str, at: str) -> None:
    def step(what: str) -> None:
        if what.startswith(at):
            os.kill(os.getpid(), signal.SIGKILL)

    settings = live.settings()
    async with opened(settings) as engine:
        rules = Rules(engine.state, settings.scratch, utc_now, os.urandom, "token", step=step)
        restorer = Restorer(rules, settings.sources())
        if verb == "undo":
            (point,) = await restorer.undo_points()
            await restorer.undo(point.restore_id, consent=True)
            return
        catalog = Catalog(engine.repository)
        backup = await catalog.find("latest")
        manifest = await catalog.manifest(backup)
        made = backup.snapshot
        origin = Origin(backup.backup_id, backup.id, made.tree, made.time, manifest)
        plan = await restorer.plan(engine.repository, origin, RestoreRequest())
        await restorer.restore(plan.plan_id, origin, Means(engine.repository), consent=True)


if __name__ == "__main__":
    root, home, port, name, verb, at = sys.argv[1:]
    server = Server(Path(home), Path("/"), int(port))
    anyio.run(main, Live(server, name, Path(root)), verb, at)
