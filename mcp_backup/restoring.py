"""Restoring: the verbs of a restore on one engine, and the backup that a restore is from."""

from typing import TYPE_CHECKING

from mcp_backup.catalog import Backup
from mcp_backup.errors import IntegrityError, UsageError
from mcp_backup.progress import Listener
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.restore.examining import Means
from mcp_backup.restore.plan import Origin
from mcp_backup.restore.recovery import Recovered
from mcp_backup.restore.restorer import Restorer
from mcp_backup.restore.rules import Rules
from mcp_backup.sources.capture import CAPTURING
from mcp_backup.verbs_restores import (
    RestorePlan,
    RestoreReport,
    RestoreRequest,
    UndoPoint,
    UndoReport,
)
from mcp_backup.workers import forking

if TYPE_CHECKING:
    from mcp_backup.engine import Engine


class Restoring:
    """A restorer, and where what it restores comes from."""

    def __init__(self, engine: "Engine") -> None:
        """Restore from the engine's repository, by its settings."""
        settings, place = engine.settings, engine.place
        self._repository, self._catalog = engine.repository, engine.catalog
        self._index_cache = engine.index_cache
        self._restorer = Restorer(
            Rules(
                state=engine.state,
                scratch=settings.scratch,
                now=place.now,
                random=place.random,
                confirmation=settings.restore.confirmation,
                plan_minutes=settings.restore.plan_minutes,
                undo_keep=settings.restore.undo_keep,
            ),
            settings.sources(),
        )

    async def plan(self, request: RestoreRequest) -> RestorePlan:
        """Work out what a restore would do; see `Engine.plan_restore`."""
        await self._index_cache.load(trusted=True)
        await self._index_cache.keep()  # the plan is carried out soon, often by another process
        origin = await self._origin(await self._catalog.find(request.backup_id))
        return await self._restorer.plan(self._repository, origin, request)

    async def shown(self, plan_id: str) -> RestorePlan:
        """Return a plan made before."""
        return await self._restorer.shown(plan_id)

    async def approve(self, plan_id: str, by: str) -> RestorePlan:
        """Approve a plan in a person's name."""
        return await self._restorer.approve(plan_id, by)

    async def restore(
        self, plan_id: str, listener: Listener, *, consent: bool = False
    ) -> RestoreReport:
        """Carry out a plan; see `Restorer.restore`."""
        plan = await self._restorer.shown(plan_id)
        if plan.undoes:
            raise UsageError(
                f"plan {plan_id} is for the undo of {plan.undoes}",
                hint=f"Call undo_restore with restore_id={plan.undoes}. Nothing was touched.",
            )
        async with (
            forking(SEALING, *CAPTURING),
            locked(self._repository, wait=PATIENCE_SECONDS),
            sealing_pool(self._repository.key) as pool,
        ):
            means = Means(self._repository, pool, listener)
            try:
                await self._index_cache.load(trusted=True)
                origin = await self._origin(await self._catalog.find(plan.snapshot_id))
                return await self._restorer.restore(plan_id, origin, means, consent=consent)
            except IntegrityError:  # whatever it was, the next attempt reads the index itself
                await self._index_cache.drop()
                raise

    async def undo(self, restore_id: str, *, consent: bool = False) -> UndoReport:
        """Put back what was live before a restore."""
        async with forking(*CAPTURING):
            return await self._restorer.undo(restore_id, consent=consent)

    async def undo_points(self) -> list[UndoPoint]:
        """Return what can be undone, newest first."""
        return await self._restorer.undo_points()

    async def recover(self) -> list[Recovered]:
        """Finish or put right what crashes left."""
        return await self._restorer.recover()

    async def _origin(self, backup: Backup) -> Origin:
        return Origin(
            backup_id=backup.backup_id,
            snapshot_id=backup.id,
            tree=backup.snapshot.tree,
            time=backup.snapshot.time,
            manifest=await self._catalog.manifest(backup),
        )
