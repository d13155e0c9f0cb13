"""Recovery where live data are not simply old or new, and where it has to wait its turn."""

from contextlib import suppress

import pytest

from mcp_backup.errors import PlanExpired, RestoreError
from mcp_backup.restore.journal import Steps, read_all
from mcp_backup.restore.turn import turn
from mcp_backup.restore.undo import prune
from mcp_backup.sources.source import Component
from mcp_backup.verbs_restores import RestoreRequest
from tests.doubles import FrozenClock
from tests.restore.bench import bench, restorer_on, state_of
from tests.system import System, bodies, change

BOTH = RestoreRequest(databases=("notes",), components=(Component.CONFIG,))


class Killed(BaseException):
    """Ends a restore as a kill does: nothing is caught, nothing is put back."""


def dying(at: str) -> Steps:
    def step(what: str) -> None:
        if what == at:
            raise Killed

    return step


async def killed(system: System, at: str) -> None:
    """Leave a restore of a changed system as a kill before that step would."""
    change(system.notes, "old")
    (system.project / ".env").write_text("TOKEN=old\n")
    with suppress(Killed):
        async with bench(system, dying(at)) as on:
            await on.restore(BOTH)


async def test_what_somebody_wrote_to_since_is_left_as_it_is(system: System) -> None:
    await killed(system, "exchange databases/notes")
    change(system.notes, "written after the crash")
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "interrupted"
    assert "databases/notes changed after the crash" in found.message
    assert f"mcp-backup undo {found.restore_id}" in found.message
    assert bodies(system.notes)[0] == "written after the crash"
    assert "s3cret" in (system.project / ".env").read_text()  # the others are exchanged
    assert await restorer_on(system).recover() == []


async def test_an_interrupted_restore_can_be_undone_and_is_not_pruned(system: System) -> None:
    await killed(system, "exchange databases/notes")
    change(system.notes, "written after the crash")
    (found,) = await restorer_on(system).recover()
    assert await prune(state_of(system) / "restores", 0, FrozenClock()) == []
    await restorer_on(system).undo(found.restore_id, consent=True)
    assert bodies(system.notes)[0] == "old"
    assert (system.project / ".env").read_text() == "TOKEN=old\n"


async def test_one_file_that_somebody_wrote_to_keeps_the_set_as_it_is(system: System) -> None:
    await killed(system, "exchange config/project")
    (system.project / ".env").write_text("TOKEN=after the crash\n")
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "interrupted"
    assert (system.project / ".env").read_text() == "TOKEN=after the crash\n"
    assert bodies(system.notes)[0] != "old"


async def test_a_set_of_which_a_part_was_exchanged_is_finished(system: System) -> None:
    (system.project / "settings" / "server.yaml").write_text("port: 1\n")
    await killed(system, "exchange config/project")
    (system.project / "settings" / "server.yaml").write_text("port: 8680\n")  # as in the backup
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "restored"
    assert "s3cret" in (system.project / ".env").read_text()


async def test_what_is_busy_is_tried_again_at_the_next_start(system: System) -> None:
    """A database that an undo removes is not removed under those who have it open."""
    system.tasks.unlink()
    async with bench(system) as on:
        report = await on.restore(RestoreRequest(databases=("tasks",)))
    with suppress(Killed):
        undoing = restorer_on(system, dying("exchange databases/tasks"))
        await undoing.undo(report.undo_id, consent=True)
    with system.tasks.open("rb"):
        (found,) = await restorer_on(system).recover()
        assert found.outcome == "postponed"
        assert "the next start tries again" in found.message
        assert system.tasks.exists()
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "restored"
    assert not system.tasks.exists()


async def test_when_it_cannot_go_forward_it_goes_back(system: System) -> None:
    await killed(system, "exchange config/project")
    (record,) = read_all(state_of(system) / "restores")
    (record.directory / "staged" / "config" / "project" / ".env").unlink()
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "rolled-back"
    assert bodies(system.notes)[0] == "old"
    assert (system.project / ".env").read_text() == "TOKEN=old\n"


async def test_a_rollback_that_could_not_be_written_down_is_not_taken_for_an_exchange(
    system: System,
) -> None:
    """On a full disk the journal ends with the exchange; that nothing is staged tells the rest."""
    await killed(system, "exchange databases/notes")
    (record,) = read_all(state_of(system) / "restores")
    for path in sorted((record.directory / "staged").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (record.directory / "staged").rmdir()
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "rolled-back"
    assert bodies(system.notes)[0] == "old"


async def test_a_journal_that_cannot_be_read_is_told_and_left(system: System) -> None:
    await killed(system, "exchange databases/notes")
    (record,) = read_all(state_of(system) / "restores")
    with (record.directory / "journal").open("ab") as file:
        file.write(b"{}\n")
    (found,) = await restorer_on(system).recover()
    assert found.outcome == "postponed"
    assert "cannot be read" in found.message
    assert (record.directory / "undo" / "databases" / "notes").is_dir()
    with pytest.raises(RestoreError, match="cannot be read"):
        await restorer_on(system).undo(found.restore_id, consent=True)


async def test_while_another_process_restores_there_is_nothing_to_recover(system: System) -> None:
    await killed(system, "exchange databases/notes")
    async with turn(state_of(system)):
        assert await restorer_on(system).recover() == []
    assert len(await restorer_on(system).recover()) == 1


async def test_the_next_restore_recovers_first_and_is_planned_on_what_that_leaves(
    system: System,
) -> None:
    await killed(system, "exchange databases/notes")
    change(system.notes, "newer")
    async with bench(system) as on:
        plan = await on.plan(BOTH)
        with pytest.raises(PlanExpired, match=r"config/project: \.env changed"):
            await on.carry_out(plan.plan_id)
        report = await on.restore(BOTH)
        outcomes = {record.begun.restore_id: record.outcome for record in read_all(on.restores)}
    assert outcomes.pop(report.restore_id) == "restored"
    assert list(outcomes.values()) == ["interrupted"]
