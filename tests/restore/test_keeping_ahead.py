"""An undo point taken before it is due: it counts only while it is what would be kept."""

import anyio
import pytest

from mcp_backup.sources.glance import SETTLED_NS
from mcp_backup.verbs_restores import RestoreRequest
from tests.restore.bench import bench
from tests.system import System, bodies, change

NOTES = RestoreRequest(databases=("notes",))


@pytest.mark.parametrize("written", [False, True], ids=["quiet", "written to"])
async def test_an_undo_point_taken_while_examining_counts_if_nothing_is_written_until_it_is_due(
    system: System, written: bool
) -> None:
    steps: list[str] = []

    def step(what: str) -> None:
        steps.append(what)
        if written and what == "fsync undo databases/notes" and steps.count(what) == 1:
            change(system.notes, "written during the examination")

    change(system.notes, "before the restore")
    await anyio.sleep(SETTLED_NS / 1e9 + 0.1)
    async with bench(system, step) as on:
        report = await on.restore(NOTES)
        kept = [at for at, what in enumerate(steps) if what == "keep databases/notes"]
        assert kept[0] < steps.index("journal new databases/notes")  # it had been examined by then
        assert len(kept) == 1 + written
        await on.restorer.undo(report.undo_id, consent=True)
    wanted = "written during the examination" if written else "before the restore"
    assert bodies(system.notes)[0] == wanted
