"""The engine: one method per verb, and the owner of repository, lock, clock and state.

Doors translate and call; everything they can ask for is here, and everything they can be told is
in `verbs.py`. An engine is opened for as long as its door lives and may be called concurrently;
each verb takes the repository's lock for itself. What a verb takes to do its work is loaded when
it is first asked for, so that who lists backups does not wait for what restores them.
"""

import logging
from datetime import datetime
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Literal, cast

from anyio import to_thread

from mcp_backup.catalog import Catalog, Filter
from mcp_backup.history import History
from mcp_backup.index_cache import IndexCache
from mcp_backup.place import Place
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.recording import recorded, take_up
from mcp_backup.repository.repository import Repository
from mcp_backup.restore.workspace import anything_left
from mcp_backup.settings import Settings
from mcp_backup.snapshot_cache import SnapshotCache
from mcp_backup.tasks import loaded
from mcp_backup.verbs import (
    BackupPage,
    BackupReport,
    CheckReport,
    CreateRequest,
    Level,
    VerifyReport,
)

if TYPE_CHECKING:
    from mcp_backup.judging import Judging
    from mcp_backup.restoring import Restoring
    from mcp_backup.verbs_restores import (
        RestorePlan,
        RestoreReport,
        RestoreRequest,
        UndoPoint,
        UndoReport,
    )

logger = logging.getLogger(__name__)


class Engine:
    """The verbs. Made by `opened`."""

    def __init__(self, settings: Settings, repository: Repository, place: Place) -> None:
        """Work on an open repository; `place` says what time it is and where we are."""
        self.settings = settings
        self.repository = repository
        self.state = settings.state_dir / repository.config.id[:16]
        self.place = place
        self.index_cache = IndexCache(self.state / "index.cache", repository)
        cache = SnapshotCache(self.state / "snapshots.cache", repository.config.id, repository.key)
        self.catalog = Catalog(repository, cache)
        self.history = History(self.state / "history.db", place.now)
        self.environ = place.environ
        self._restorer: Restoring | None = None

    @cached_property
    def judging(self) -> "Judging":
        """What retention says of the backups there are; loaded when it is first asked."""
        module = import_module("mcp_backup.judging")
        judging: Judging = module.Judging(
            self.catalog, self.history, self.state, self.settings, self.place.now
        )
        return judging

    @property
    def confirmation(self) -> Literal["human", "elicit", "token"]:
        """How a restore over live data is confirmed, by the settings."""
        return self.settings.restore.confirmation

    @property
    def hostname(self) -> str:
        """The name under which this machine's backups are made."""
        return self.place.hostname

    def now(self) -> datetime:
        """Return the time, as this engine's surroundings tell it."""
        return self.place.now()

    @recorded("create")
    async def create(self, request: CreateRequest, listener: Listener = nobody) -> BackupReport:
        """Back up now. A cancel or crash leaves no snapshot, or the whole one.

        Raises:
            UsageError: nothing is configured that this asks for, or an unknown name.
            NothingBackedUp: every source failed; nothing was stored.
            StoreError, RepositoryError: the repository could not take it; nothing was stored.
        """
        creating = await loaded("mcp_backup.creating")
        report: BackupReport = await creating.create(self, request, listener)
        return report

    async def backups(  # noqa: PLR0913 - one parameter per condition
        self,
        *,
        limit: int = 20,
        cursor: str = "",
        source: str = "",
        backup_type: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> BackupPage:
        """List backups, newest first; empty conditions want all."""
        return await self.judging.page(Filter(source, backup_type, since, until), limit, cursor)

    @recorded("verify")
    async def verify(
        self,
        backup_id: str = "latest",
        level: Level = Level.DATA,
        listener: Listener = nobody,
    ) -> VerifyReport:
        """Verify one backup; see `restore.verify` for the levels.

        Raises:
            UnknownBackup: there is no such backup.
            UsageError: the snapshot was made by another program and has no evidence.
        """
        verifying = await loaded("mcp_backup.verifying")
        report: VerifyReport = await verifying.verify(self, backup_id, level, listener)
        return report

    @recorded("check")
    async def check(
        self, level: Level = Level.STRUCTURE, listener: Listener = nobody
    ) -> CheckReport:
        """Check the whole repository: what restic's own check checks, and as strictly."""
        checking = await loaded("mcp_backup.checking")
        report: CheckReport = await checking.check_repository(self, level, listener)
        return report

    async def plan_restore(self, request: "RestoreRequest") -> "RestorePlan":
        """Work out what a restore would do, and keep that as a plan. Touches nothing live."""
        return await (await self._restoring()).plan(request)

    async def plan(self, plan_id: str) -> "RestorePlan":
        """Return a plan made before, with whether it has been approved."""
        return await (await self._restoring()).shown(plan_id)

    @recorded("approve")
    async def approve(self, plan_id: str, by: str) -> "RestorePlan":
        """Approve a plan in a person's name. Only doors that a person holds call this."""
        plan = await (await self._restoring()).approve(plan_id, by)
        logger.info("plan approved: plan=%s by=%s", plan_id, by)
        return plan

    @recorded("restore")
    async def restore(
        self, plan_id: str, listener: Listener = nobody, *, consent: bool = False
    ) -> "RestoreReport":
        """Carry out a plan; see `Restorer.restore`. `consent`: a person approved it just now."""
        report = await (await self._restoring()).restore(plan_id, listener, consent=consent)
        logger.info("restored: restore=%s backup=%s", report.restore_id, report.backup_id)
        return report

    @recorded("undo")
    async def undo(
        self, restore_id: str, listener: Listener = nobody, *, consent: bool = False
    ) -> "UndoReport":
        """Put back what was live before a restore. Needs approval, as a restore does."""
        await listener(Progress("swap", restore_id, 0, 1))
        report = await (await self._restoring()).undo(restore_id, consent=consent)
        logger.info("undone: restore=%s", restore_id)
        return report

    async def restores(self) -> "list[UndoPoint]":
        """Return what can be undone, newest first."""
        return await (await self._restoring()).undo_points()

    async def recover(self) -> None:
        """Finish or put right what a crash interrupted; rebuild a history that is new or lost."""
        if await to_thread.run_sync(anything_left, self.state, self.settings.scratch):
            for found in await (await self._restoring()).recover():
                logger.warning("recovered: %s", found)
        await take_up(self.history, self.catalog, self.hostname)

    async def _restoring(self) -> "Restoring":
        """Return what restores; it is loaded when it is first asked for."""
        if self._restorer is None:
            restoring = await loaded("mcp_backup.restoring")
            self._restorer = cast("Restoring", restoring.Restoring(self))
        return self._restorer
