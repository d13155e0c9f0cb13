"""Restores over live data, one after the other: what changes, what is kept, what is refused."""

from pathlib import Path

import pytest

from tests.restore.bench import backed_up, bench
from tests.system import System, bodies, change, make_system


@pytest.fixture
async def system(tmp_path: Path) -> System:
    system = await make_system(tmp_path / "system", rows=20)
    await backed_up(system)
    return system


async def test_everything_comes_back_as_it_was_backed_up(system: System) -> None:
    before = bodies(system.notes)
    change(system.notes)
    system.tasks.unlink()
    (system.project / ".env").write_text("TOKEN=wrecked\n")
    (system.project / "settings" / "server.yaml").unlink()
    async with bench(system) as on:
        report = await on.restore()
    assert report.status == "restored"
    assert bodies(system.notes) == before
    assert len(bodies(system.tasks)) == 20
    assert "s3cret" in (system.project / ".env").read_text()
    assert (system.project / "settings" / "server.yaml").read_text() == "port: 8680\n"
