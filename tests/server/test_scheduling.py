"""The schedule in a real server: it runs, and what it has begun outlives the client."""

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import anyio
from anyio import to_thread

from mcp_backup.engine import Engine
from mcp_backup.history import Run
from tests.server.conftest import Machine
from tests.server.serving import PATIENCE, daemon


def overdue(engine: Engine) -> None:
    """Say that the schedule has been running for a day, and has made nothing."""
    engine.state.mkdir(parents=True, exist_ok=True)
    since = datetime.now(UTC) - timedelta(days=1)
    (engine.state / "schedule.since").write_text(since.isoformat())


async def scheduled(engine: Engine) -> Sequence[Run]:
    return [run for run in await engine.history.runs() if run.asker.door == "schedule"]


async def until(engine: Engine, enough: Callable[[Sequence[Run]], bool]) -> Sequence[Run]:
    with anyio.fail_after(PATIENCE):
        while not enough(runs := await scheduled(engine)):  # noqa: ASYNC110 - another process
            await anyio.sleep(0.02)
    return runs


async def test_a_daemon_makes_the_backup_that_was_missed(machine: Machine) -> None:
    async with machine.engine() as engine:
        overdue(engine)
        with daemon(machine):
            runs = await until(engine, lambda runs: any(run.ended for run in runs))
        assert runs[-1].outcome == "completed"
        assert runs[-1].verb == "create"


async def test_a_scheduled_backup_is_finished_when_the_client_hangs_up(machine: Machine) -> None:
    async with machine.engine() as engine:
        overdue(engine)
        command = machine.command("serve")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as server:
            try:
                await until(engine, lambda runs: bool(runs))
                _, told = await to_thread.run_sync(server.communicate, b"", PATIENCE)
                assert server.returncode == 0
            finally:
                server.kill()
        run = (await scheduled(engine))[-1]
        assert run.outcome == "completed"
        assert b"finished before stopping" in told


async def test_no_server_schedules_where_the_settings_say_so(machine: Machine) -> None:
    text = machine.config.read_text()
    machine.config.write_text(text + "\n[schedule]\nenabled = false\n")
    async with machine.engine() as engine:
        overdue(engine)
        with daemon(machine):
            await anyio.sleep(1.5)  # more than a server waits before it looks
        assert await scheduled(engine) == []
