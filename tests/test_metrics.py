"""Metrics: what Prometheus's own parser makes of them."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from mcp_backup.cli.app import run
from mcp_backup.errors import UsageError
from mcp_backup.metrics import exposition, measured, unopened, write_textfile
from mcp_backup.place import utc_now
from mcp_backup.secret import Secret
from mcp_backup.settings_alerts import AlertSettings
from mcp_backup.verbs import CreateRequest
from tests.system import System, make_system

Samples = dict[str, float]


def samples(text: bytes) -> Samples:
    """Each sample by its name and labels, as Prometheus reads them."""
    return {
        sample.name.removeprefix("mcp_backup_")
        + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
async def system(tmp_path: Path) -> System:
    return await make_system(tmp_path / "system", rows=20)


async def test_before_the_first_backup_every_source_has_the_timestamp_zero(system: System) -> None:
    async with system.engine() as engine:
        found = samples(exposition(await measured(engine)))
    assert found["up"] == 1
    assert found["backups"] == found["newest_backup_timestamp_seconds"] == 0
    assert found["source_last_success_timestamp_seconds databases notes"] == 0
    assert found["source_last_success_timestamp_seconds config project"] == 0
    assert found["source_rpo_seconds databases notes"] == 24 * 3600
    assert "newest_backup_age_seconds" not in found


async def test_what_backups_did_is_measured(system: System) -> None:
    began = utc_now().timestamp()
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        system.tasks.unlink()
        report = await engine.create(CreateRequest())
        found = samples(exposition(await measured(engine)))
    good, failed = (f"databases {name}" for name in ("notes", "tasks"))
    last_success = "source_last_success_timestamp_seconds"
    assert began - 1 <= found[f"{last_success} {failed}"] <= found[f"{last_success} {good}"]
    assert (found[f"source_last_ok {good}"], found[f"source_last_ok {failed}"]) == (1, 0)
    assert found["backups"] == 2
    assert found["last_run_outcome partial create"] == 1
    assert found["last_run_outcome completed create"] == 0
    assert found["last_run_read_bytes create"] == report.read_bytes > 0
    assert found["last_run_duration_seconds create"] > 0
    assert (found["runs_total success"], found["runs_total partial"]) == (1, 1)
    assert 0 <= found["newest_backup_age_seconds"] < 60
    assert found["health at risk"] == 1
    assert sum(value for name, value in found.items() if name.startswith("health ")) == 1


async def test_an_old_backup_is_failing(system: System) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
    async with system.engine(now=lambda: utc_now() + timedelta(days=3)) as engine:
        found = samples(exposition(await measured(engine)))
    assert found["health failing"] == 1
    assert found["newest_backup_age_seconds"] > 3 * 86400 - 60


async def test_receivers_have_their_count_of_pending_alerts(system: System) -> None:
    url = Secret("http://127.0.0.1:1/t0ken")
    alert = AlertSettings(kind="webhook", url=url, name="phone")
    settings = structs.replace(system.settings, alerts=(alert,))
    async with System(system.root, settings).engine() as engine:
        text = exposition(await measured(engine))
    assert samples(text)["alerts_pending phone"] == 0
    assert b"t0ken" not in text


def test_a_repository_that_cannot_be_opened_is_down_and_says_why() -> None:
    assert samples(unopened("wrong-password")) == {"up": 0, "error wrong-password": 1}


def program(system: System, *words: str) -> int:
    config = system.root / "mcp-backup.toml"
    config.write_text(
        f'state_dir = "{system.root}/state"\n[repository]\nlocation = "{system.repository}"\n'
        f'password_file = "{system.root}/backups.key"\n'
        f'[[databases]]\nname = "notes"\npath = "{system.notes}"\n'
    )
    return run(["--config", str(config), *words])


def test_the_terminal_writes_a_file_that_node_exporter_may_read(tmp_path: Path) -> None:
    system = anyio.run(make_system, tmp_path / "system")
    textfile = tmp_path / "mcp_backup.prom"
    textfile.write_text("old")
    assert program(system, "create") == 0
    assert program(system, "metrics", "--textfile", str(textfile)) == 0
    assert samples(textfile.read_bytes())["backups"] == 1
    assert textfile.stat().st_mode & 0o777 == 0o644
    (system.root / "backups.key").write_text("another")
    assert program(system, "metrics", "--textfile", str(textfile)) == 1
    assert samples(textfile.read_bytes()) == {"up": 0, "error wrong-password": 1}
    assert [path.name for path in tmp_path.glob("*.prom*")] == ["mcp_backup.prom"]


def test_a_file_that_cannot_be_written_is_told_and_the_old_one_stays(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file|not a directory|cannot be written"):
        write_textfile(tmp_path / "nowhere/x.prom", b"")
