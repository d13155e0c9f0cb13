"""kill -9 at the steps of a restore: the live database is the old or the new, nothing is left."""

import signal
import subprocess
import sys

import pytest

from mcp_backup.opening import opened
from tests.postgres.conftest import Live
from tests.postgres.test_restore import backed_up, wreck


def killed(live: Live, verb: str, at: str) -> None:
    place = [str(live.root), str(live.server.home), str(live.server.port), live.name]
    command = [sys.executable, "-m", "tests.postgres.restoring", *place, verb, at]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.parametrize(
    ("at", "forward"),
    [("journal new", False), ("exchange ", True), ("verify ", True)],
)
async def test_a_restore_killed_at_a_step_is_taken_back_before_the_exchange_and_finished_after(
    live: Live, at: str, forward: bool
) -> None:
    before = live.server.text(live.name)
    await backed_up(live)
    wreck(live)
    wrecked = live.server.text(live.name)
    killed(live, "restore", at)
    assert live.server.text(live.name) == (before if at == "verify " else wrecked)
    assert len(live.beside()) == 1
    async with opened(live.settings()):
        pass  # the next start
    assert live.server.text(live.name) == (before if forward else wrecked)
    assert len(live.beside()) == (1 if forward else 0)
    if at == "verify ":
        killed(live, "undo", "verify ")
        assert live.server.text(live.name) == wrecked
        async with opened(live.settings()) as engine:
            assert live.server.text(live.name) == wrecked
            assert len(await engine.restores()) == 1
        assert len(live.beside()) == 1
