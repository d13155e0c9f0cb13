"""What a backup found out before its lock was taken, and somebody dropped before it was."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mcp_backup.store.local import LocalStore
from mcp_backup.verbs import BackupType, CheckReport, CreateRequest, Level
from tests.system import change, make_system, settled

_LOOKS = 3  # at the locks: for stale ones, for others before ours is written, and after it was


class PrunedMeanwhile(LocalStore):
    """A store from which everything is dropped and pruned at the last look at the locks."""

    looks = 0  # until then

    async def objects(self, prefix: str) -> Mapping[str, int]:
        if prefix == "locks/" and self.looks:
            self.looks -= 1
            if not self.looks:
                for directory in ("snapshots/", "index/", "data/"):
                    for name in await self.names(directory):
                        await self.delete(name)
        return await super().objects(prefix)


@pytest.mark.parametrize("changed", [False, True])
async def test_a_source_is_stored_anew_where_its_last_backup_was_pruned_meanwhile(
    tmp_path: Path, changed: bool
) -> None:
    system = await make_system(tmp_path)
    await settled(system)
    store = PrunedMeanwhile(system.repository)
    async with system.engine(store=store) as engine:
        first = await engine.create(CreateRequest(BackupType.FULL))
        if changed:
            change(tmp_path / "notes.db")
        store.looks = _LOOKS
        second = await engine.create(CreateRequest(BackupType.INCREMENTAL))
        assert store.looks == 0
        assert {each.outcome for each in first.outcomes} == {"stored"}
        assert {each.outcome for each in second.outcomes} == {"stored"}
        assert [each.backup_id for each in (await engine.backups()).entries] == [second.backup_id]
    async with system.engine() as engine:
        found: CheckReport = await engine.check(Level.DATA)
        assert found.ok
        assert (await engine.verify(second.backup_id, Level.RESTORE)).ok
