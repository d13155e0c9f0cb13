"""The Python API: register databases, then await backups. One more thin door on the engine.

The repository is at `backup_base_dir`, its key beside it as `<backup_base_dir>.key`; both are made
at the first use. Relative paths start at the working directory of the moment they are given.

The schedule runs in a thread with an event loop of its own, as long as the program does; several
programs, and servers, that run it on one repository agree on who makes a backup. After each of
its daily and weekly backups the retention policy is applied; nothing else deletes.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from msgspec.structs import asdict

from mcp_backup.ecosystem_facts import (
    BackupMetadata,
    BackupStatus,
    DatabaseBackupConfig,
    Restored,
    RetentionTier,
    Statistics,
)
from mcp_backup.engine import Engine
from mcp_backup.errors import SettingsInvalid, StagingRejected, UsageError
from mcp_backup.news import Opening, alerted
from mcp_backup.opening import initialise, opened
from mcp_backup.scheduler_thread import SchedulerThread
from mcp_backup.settings import Settings
from mcp_backup.settings_alerts import AlertSettings
from mcp_backup.settings_sections import RetentionSettings, ScheduleSettings
from mcp_backup.settings_table import checked
from mcp_backup.sources.source import Component
from mcp_backup.status import ages, status
from mcp_backup.verbs import BackupEntry, BackupType, CreateRequest, Level, VerifyReport
from mcp_backup.verbs_restores import RestoreRequest

__all__ = [
    "AlertSettings",
    "BackupMetadata",
    "BackupStatus",
    "BackupType",
    "DatabaseBackupConfig",
    "EcosystemBackupManager",
    "RetentionTier",
]

_PAGE = 200  # entries asked for at once when all are wanted


class EcosystemBackupManager:
    """Backs up registered databases. Methods may be awaited concurrently."""

    def __init__(
        self,
        backup_base_dir: str | Path = "./backups",
        retention_policy: Mapping[RetentionTier, int] | None = None,
        *,
        alerts: Sequence[AlertSettings] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Use the repository at `backup_base_dir`; nothing is made or read before it is needed.

        What goes wrong, in a call or in the schedule, is told to the receivers in `alerts`.
        """
        self.backup_base_dir = Path.cwd() / Path(backup_base_dir).expanduser()
        self.retention_policy = dict(retention_policy or _default_policy())
        self._configs: dict[str, DatabaseBackupConfig] = {}
        self._paths: dict[str, Path] = {}
        self._alerts = tuple(alerts)
        self._now = now
        self._schedule = ScheduleSettings(enabled=False)
        self._scheduler: SchedulerThread | None = None

    def register_database(self, config: DatabaseBackupConfig) -> None:
        """Back this database up from now on. It need not exist yet.

        Raises:
            UsageError: the name is taken.
        """
        if config.name in self._configs:
            raise UsageError(
                f"a database named {config.name!r} is registered already",
                hint="Give each database its own name.",
            )
        self._configs[config.name] = config
        self._paths[config.name] = Path.cwd() / Path(config.db_path).expanduser()

    async def create_backup(
        self,
        backup_type: BackupType = BackupType.FULL,
        databases: Sequence[str] | None = None,
        verify: bool = True,
    ) -> BackupMetadata:
        """Back up now; a cancel leaves no backup.

        Verification reads back everything stored; it is left out when `verify` says so, or every
        database concerned does.

        Raises:
            NothingBackedUp: every database failed.
            UsageError: nothing is registered, or one of `databases` is not.
        """
        chosen = databases or list(self._configs)
        wanted = [self._configs[name] for name in chosen if name in self._configs]
        verified = verify and any(config.verify_after_backup for config in wanted)
        request = CreateRequest(backup_type, tuple(databases or ()), verified)
        async with self._engine() as engine:
            return BackupMetadata.of_report(await engine.create(request), self.backup_base_dir)

    async def list_backups(self) -> list[BackupMetadata]:
        """Return all backups, newest first."""
        return [
            BackupMetadata.of_entry(each, self.backup_base_dir) for each in await self._entries()
        ]

    async def verify_backup(self, backup_id: str = "latest") -> VerifyReport:
        """Read a backup back, whole, and compare it with what its databases were."""
        async with self._engine() as engine:
            return await engine.verify(backup_id, Level.DATA)

    async def restore_backup(
        self,
        backup_id: str = "latest",
        components: Sequence[str] | None = None,
        verify_before_restore: bool = True,
    ) -> Restored:
        """Put a backup's data over the live data. The caller has decided; nobody is asked.

        Everything is staged and examined before anything live is touched; on top of that,
        `verify_before_restore` reads the whole backup first. What was live is kept, and
        `mcp-backup undo` puts it back.

        Raises:
            UnknownBackup: there is no such backup.
            RestoreError: nothing live was changed, or it was put back; the error says which.
        """
        parts = tuple(_component(name) for name in components or ())
        async with self._engine() as engine:
            if verify_before_restore:
                _refuse_findings(await engine.verify(backup_id, Level.DATA))
            plan = await engine.plan_restore(RestoreRequest(backup_id, components=parts))
            report = await engine.restore(plan.plan_id, consent=True)
        return Restored(
            status="success",
            backup_id=report.backup_id,
            restored_components=[target.source for target in report.targets],
            undo_id=report.undo_id,
        )

    async def get_statistics(self) -> Statistics:
        """Say how the backups are, and count them."""
        entries = await self._entries()
        async with self._engine() as engine:
            report = await status(engine, around=False)
        complete = sum(entry.status == BackupStatus.COMPLETED for entry in entries)
        return Statistics(
            health=report.health,
            reasons=list(report.reasons),
            total_backups=len(entries),
            successful_backups=complete,
            partial_backups=len(entries) - complete,
            failed_backups=report.statistics.failures + report.statistics.interrupted,
            total_size_bytes=sum(entry.added_bytes for entry in entries),
            compression_ratio=report.statistics.compression,
            average_duration_seconds=report.statistics.mean_seconds,
            rpo_hours={each.source: each.rpo_hours for each in report.sources},
            last_backup_time=entries[0].time.isoformat() if entries else None,
            age_distribution=ages([self._now() - entry.time for entry in entries]),
            retention_policy={tier.value: kept for tier, kept in self.retention_policy.items()},
        )

    def schedule_automated_backups(
        self, daily_hour: int = 2, weekly_day: str = "sunday", weekly_hour: int = 3
    ) -> None:
        """Back up every day and every week at these hours, in this machine's timezone.

        It begins with `start_scheduler`. The daily backup reads what changed, the weekly all.

        Raises:
            SettingsInvalid: there is no such hour or day.
        """
        try:
            self._schedule = checked(
                ScheduleSettings,
                {
                    "daily": f"{daily_hour:02}:00",
                    "weekly": f"{weekly_day.lower()} {weekly_hour:02}:00",
                },
            )
        except SettingsInvalid:
            raise SettingsInvalid(
                f"there is no hour {daily_hour}, or no {weekly_day!r} at hour {weekly_hour}",
                hint="Hours are 0 to 23, days are written out. Nothing was scheduled.",
            ) from None

    def start_scheduler(self) -> None:
        """Run the schedule in a thread, until `stop_scheduler` or the end of the program.

        It makes the backups of what is registered now, and catches up on what was missed since
        it was first started. Where it runs already, nothing happens.

        Raises:
            UsageError: nothing is scheduled.
            SettingsInvalid: what was registered cannot be backed up.
        """
        if not self._schedule.enabled:
            raise UsageError(
                "nothing is scheduled", hint="Call schedule_automated_backups() before."
            )
        if self._scheduler is None:
            self._scheduler = SchedulerThread(self._settings(), self._engine_on)

    def stop_scheduler(self) -> None:
        """Stop the schedule; a backup under way gets some seconds to finish. Blocks meanwhile."""
        if self._scheduler is not None:
            self._scheduler.stop()
        self._scheduler = None

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[Engine]:
        settings = self._settings()
        opening: Opening = partial(self._engine_on, settings)
        if settings.alerts:
            opening = alerted(opening, settings, alone=True)
        async with opening() as engine:
            yield engine

    @asynccontextmanager
    async def _engine_on(self, settings: Settings) -> AsyncIterator[Engine]:
        if not (self.backup_base_dir / "config").exists():
            await initialise(settings)
        async with opened(settings) as engine:
            yield engine

    def _settings(self) -> Settings:
        key = self.backup_base_dir.with_name(f"{self.backup_base_dir.name}.key")
        databases = [
            {
                "name": config.name,
                "path": self._paths[config.name],
                "exclude_tables": config.tables_to_exclude,
            }
            for config in self._configs.values()
            if config.enabled and config.backup_enabled
        ]
        told = {
            "repository": {"location": str(self.backup_base_dir), "password_file": key},
            "retention": {tier.value: kept for tier, kept in self.retention_policy.items()},
            "schedule": self._schedule,
            "alerts": [asdict(alert) for alert in self._alerts],
            "databases": databases,
        }
        try:
            return checked(Settings, told)
        except SettingsInvalid as error:
            raise SettingsInvalid(str(error), hint="Correct what was registered.") from None

    async def _entries(self) -> list[BackupEntry]:
        entries: list[BackupEntry] = []
        async with self._engine() as engine:
            page = await engine.backups(limit=_PAGE)
            entries += page.entries
            while page.next_cursor:
                page = await engine.backups(limit=_PAGE, cursor=page.next_cursor)
                entries += page.entries
        return [entry for entry in entries if entry.ours]


def _default_policy() -> dict[RetentionTier, int]:
    kept = RetentionSettings()
    return {tier: getattr(kept, tier.value) for tier in RetentionTier}


def _component(name: str) -> Component:
    try:
        return Component(name)
    except ValueError:
        known = ", ".join(Component)
        raise UsageError(
            f"{name!r} is none of the components {known}", hint="Nothing was restored."
        ) from None


def _refuse_findings(report: VerifyReport) -> None:
    if not report.ok:
        first = report.findings[0]
        raise StagingRejected(
            f"{report.backup_id} does not verify: {first.source}: {first.message}",
            hint="Restore another backup. Nothing live was touched.",
        )
