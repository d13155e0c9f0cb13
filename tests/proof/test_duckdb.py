"""A DuckDB source in a drill: restored, examined, placed and asked like any other."""

from pathlib import Path

from msgspec.structs import replace

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.opening import initialise
from mcp_backup.proof.drill import drill
from mcp_backup.settings_drills import CheckSettings
from mcp_backup.settings_sections import DatabaseSettings
from mcp_backup.verbs import CreateRequest
from tests.duckdb.ducks import make
from tests.system import System, settings_of


async def test_duckdb_is_drilled_with_the_owners_questions(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")
    checks = (
        CheckSettings(query="SELECT count(*) FROM notes", expect=2000),
        CheckSettings(query="SELECT count(*) FROM notes", expect="> 2000"),
        CheckSettings(query="DELETE FROM notes", expect=0),
        CheckSettings(query="SELECT count(*) FROM read_text('/etc/passwd')", expect=1),
    )
    source = DatabaseSettings(name="memories", path=live, kind="duckdb", checks=checks)
    settings = replace(settings_of(tmp_path), databases=(source,), config=())
    system = System(tmp_path, settings)
    await initialise(settings)
    before = live.read_bytes()
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        report = await drill(engine, DrillRequest(scenario="single-server"))
    (result,) = report.results
    assert (result.outcome, result.checks) == ("failed", 1)
    told = {each.subject: each.message for each in result.findings}
    assert told["check 2"] == "expected > 2000, got 2000"
    assert "it fails" in told["check 3"]
    assert "it fails" in told["check 4"]
    quiet = replace_checks(system)
    async with quiet.engine() as engine:
        report = await drill(engine, DrillRequest(scenario="single-server"))
    assert report.outcome == "proven"
    assert [phase.name for phase in report.results[0].phases][-1] == "place"
    assert live.read_bytes() == before


def replace_checks(system: System) -> System:
    (source,) = system.settings.databases
    databases = (replace(source, checks=()),)
    return replace(system, settings=replace(system.settings, databases=databases))
