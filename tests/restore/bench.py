"""A restorer on a small live system, with its steps in the test's hands."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from mcp_backup.catalog import Catalog
from mcp_backup.opening import opened
from mcp_backup.place import utc_now
from mcp_backup.repository.repository import Repository
from mcp_backup.restore.examining import Means
from mcp_backup.restore.journal import Steps, nothing
from mcp_backup.restore.plan import Origin
from mcp_backup.restore.restorer import Restorer
from mcp_backup.restore.rules import Rules
from mcp_backup.verbs import CreateRequest
from mcp_backup.verbs_restores import RestorePlan, RestoreReport, RestoreRequest
from tests.system import System


class Bench(Struct, frozen=True):
    """An open repository with one backup in it, and a restorer."""

    system: System
    repository: Repository
    restorer: Restorer
    origin: Origin

    @property
    def restores(self) -> Path:
        return state_of(self.system) / "restores"

    async def plan(self, request: RestoreRequest | None = None) -> RestorePlan:
        return await self.restorer.plan(self.repository, self.origin, request or RestoreRequest())

    async def restore(self, request: RestoreRequest | None = None) -> RestoreReport:
        return await self.carry_out((await self.plan(request)).plan_id)

    async def carry_out(self, plan_id: str, *, consent: bool = True) -> RestoreReport:
        means = Means(self.repository)
        return await self.restorer.restore(plan_id, self.origin, means, consent=consent)


def state_of(system: System) -> Path:
    return system.root / "restorer"


def restorer_on(
    system: System,
    step: Steps = nothing,
    now: Callable[[], datetime] = utc_now,
    undo_keep: int = 5,
    settle_seconds: float = 0.0,
) -> Restorer:
    """A restorer that grants dead workers no time, where the test knows that there are none."""
    rules = Rules(
        state=state_of(system),
        scratch=system.root / "scratch",
        now=now,
        random=os.urandom,
        undo_keep=undo_keep,
        step=step,
        settle_seconds=settle_seconds,
    )
    return Restorer(rules, system.settings.sources())


async def backed_up(system: System, *, verify: bool = False) -> None:
    async with opened(system.settings) as engine:
        await engine.create(CreateRequest(verify=verify))


@asynccontextmanager
async def bench(
    system: System,
    step: Steps = nothing,
    now: Callable[[], datetime] = utc_now,
    undo_keep: int = 5,
) -> AsyncIterator[Bench]:
    """Work on the newest backup of a system that was `backed_up`."""
    async with opened(system.settings) as engine:
        catalog = Catalog(engine.repository)
        backup = await catalog.find("latest")
        origin = Origin(
            backup.backup_id,
            backup.id,
            backup.snapshot.tree,
            backup.snapshot.time,
            await catalog.manifest(backup),
        )
        yield Bench(system, engine.repository, restorer_on(system, step, now, undo_keep), origin)
