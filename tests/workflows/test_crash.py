"""kill -9 in the middle of giving documents back: the next start finishes it."""

import subprocess
import sys
import time

import anyio

from mcp_backup.opening import opened
from mcp_backup.restore.recovery import SETTLE_SECONDS
from tests.workflows.conftest import Keeper, flow
from tests.workflows.test_workflows import backed_up

_PATIENCE_SECONDS = 60


async def test_a_restore_killed_between_two_documents_is_finished_by_the_next_start(
    keeper: Keeper,
) -> None:
    settings = keeper.settings()
    before = keeper.workflows()
    await backed_up(settings)
    keeper.put("deploy", None)
    keeper.put("nightly", flow("nightly", step=9))
    wrecked = keeper.workflows()
    keeper.change(mood="stuck")
    words = [str(keeper.root), str(keeper.state), keeper.url]
    child = subprocess.Popen([sys.executable, "-m", "tests.workflows.restoring", *words])
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while not keeper.document().get("saves"):
        assert time.monotonic() < give_up
        await anyio.sleep(0.05)
    child.kill()
    child.wait()
    await anyio.sleep(SETTLE_SECONDS)  # its worker ends a moment after it
    assert keeper.workflows() not in (before, wrecked)
    keeper.change(mood="")
    async with opened(settings) as engine:
        assert keeper.workflows() == before
        (point,) = await engine.restores()
        await engine.undo(point.restore_id, consent=True)
    assert keeper.workflows() == wrecked
