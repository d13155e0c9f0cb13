"""Planning: what a restore would meet, looked up; `plan.py` says what that comes to."""

import os
from collections.abc import Sequence
from pathlib import Path

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.format.ids import BlobId
from mcp_backup.repository.repository import Repository
from mcp_backup.restore.plan import Choice, Origin, cautions, lost, planned, staged_only
from mcp_backup.restore.seen import Seen, look
from mcp_backup.restore.stager import Survey, subtree, survey
from mcp_backup.sources import capture
from mcp_backup.sources.source import SERVED, Holder
from mcp_backup.verbs_restores import PlannedTarget

_ROOM = 16 << 20  # bytes beside the data: journals, directories, a write-ahead log's beginning


class Planned(Struct, frozen=True):
    """What was found for a whole plan. `needed_bytes` and `free_bytes` are about one directory."""

    targets: tuple[PlannedTarget, ...]
    seen: dict[str, Seen]
    warnings: tuple[str, ...]
    needed_bytes: int
    free_bytes: int


async def plan_original(
    repository: Repository, origin: Origin, choices: Sequence[Choice], state: Path
) -> Planned:
    """Look at every live target and at what the backup holds for it. Touches nothing."""
    targets, seen, warnings = [], {}, []
    for choice in choices:
        assert choice.spec is not None
        found = await _survey(repository, origin.tree, choice)
        now = await look(choice.spec, found.paths)
        holders: list[Holder] = []
        if now.state != "absent":
            holders = await capture.holders(choice.spec)
        target = planned(choice, now, found.size, holders)
        targets.append(replace(target, lost=lost(choice, now, origin.time)))
        warnings += cautions(choice, now, holders)
        seen[choice.key] = now
    needed = _ROOM + sum(target.backup_bytes + _kept_bytes(target) for target in targets)
    free = await to_thread.run_sync(free_bytes, state)
    return Planned(tuple(targets), seen, (*warnings, *short_of(needed, free)), needed, free)


async def plan_scratch(
    repository: Repository, origin: Origin, choices: Sequence[Choice], scratch: Path
) -> Planned:
    """Add up what would be staged. Without choices that is the whole snapshot."""
    targets = []
    for choice in choices:
        found = await _survey(repository, origin.tree, choice)
        targets.append(staged_only(choice.record, found.size))
    needed = _ROOM + sum(target.backup_bytes for target in targets)
    if not choices:
        needed += (await survey(repository, origin.tree)).size
    free = await to_thread.run_sync(free_bytes, scratch)
    return Planned(tuple(targets), {}, short_of(needed, free), needed, free)


def free_bytes(directory: Path) -> int:
    """Return what is free where `directory` is, or will be."""
    while not directory.exists():
        directory = directory.parent
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def short_of(needed: int, free: int) -> tuple[str, ...]:
    """Warn when space will not do."""
    if needed <= free:
        return ()
    return (f"{needed} bytes are needed and {free} are free; the restore would be refused",)


def _kept_bytes(target: PlannedTarget) -> int:
    """What keeping the live side takes of our disk: nothing where a server keeps it."""
    return 0 if target.kind in SERVED else target.live_bytes


async def _survey(repository: Repository, root: BlobId, choice: Choice) -> Survey:
    return await survey(repository, await subtree(repository, root, choice.record.tree))
