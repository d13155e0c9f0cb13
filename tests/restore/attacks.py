"""Links put in the place of live data while a restore runs, and a look at what lies outside."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mcp_backup.errors import BackupError
from mcp_backup.restore.journal import Steps
from mcp_backup.verbs_restores import RestoreRequest
from tests.restore.bench import bench, restorer_on
from tests.system import System

Attack = Callable[[System], None]
At = Callable[[System], Path]


def outside(system: System) -> Path:
    """What belongs to somebody else."""
    return system.root.parent / "outside"


def tree(root: Path) -> Mapping[str, object]:
    """All there is to see of a tree, but access times and the number of names of a file."""
    seen: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        seen[str(path)] = (content, found.st_ino, found.st_mode, found.st_uid, found.st_mtime_ns)
    return seen


def linked(at: At, to: str) -> Attack:
    """Replace what is there by a symbolic link."""

    def attack(system: System) -> None:
        _aside(at(system))
        at(system).symlink_to(outside(system) / to)

    return attack


def hard_linked(at: At, to: str) -> Attack:
    """Replace what is there by another name of a file outside."""

    def attack(system: System) -> None:
        if os.path.lexists(at(system)):
            _aside(at(system))
        os.link(outside(system) / to, at(system))

    return attack


async def attacked(system: System, request: RestoreRequest, attack: Attack, before: str) -> None:
    """Restore, and attack before a step; then recover. Nothing outside may change."""
    seen: list[Mapping[str, object]] = []

    def step(what: str) -> None:
        if what == before and not seen:
            attack(system)
            seen.append(tree(outside(system)))

    await restored(system, request, step)
    assert seen, f"there is no step {before!r}"
    assert tree(outside(system)) == seen[0]


async def restored(system: System, request: RestoreRequest, step: Steps) -> None:
    """Restore as far as it goes, and recover what it left."""
    async with bench(system, step) as on:
        plan = await on.plan(request)
        step("planned")
        with suppress(BackupError):
            await on.carry_out(plan.plan_id)
    with suppress(BackupError):
        await restorer_on(system).recover()


def _aside(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}-aside"))
