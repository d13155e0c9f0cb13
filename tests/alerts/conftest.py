"""Settings that name a receiver, and a clock that is moved by hand."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.alerts.alert import RunFacts, SourceFacts
from mcp_backup.alerts.alerts import Alerts
from mcp_backup.alerts.sending import Patience
from mcp_backup.secret import Secret
from mcp_backup.settings import Settings
from mcp_backup.settings_alerts import AlertSettings
from mcp_backup.settings_sections import DatabaseSettings, RepositorySettings
from mcp_backup.status_report import SourceStatus, Statistics, StatusReport
from tests.alerts.receiver import Receiver, receiver

QUICK = Patience(request=0.4, command=0.4)  # for those that hang
USUAL = Patience(request=10, command=10)


@dataclass
class Clock:
    time: datetime = field(default_factory=lambda: datetime(2026, 11, 22, 2, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **amount: float) -> None:
        self.time += timedelta(**amount)


@dataclass
class Desk:
    """What makes `Alerts` for a folder; each call is like another process's."""

    root: Path
    clock: Clock

    def settings(self, *alerts: AlertSettings) -> Settings:
        return Settings(
            repository=RepositorySettings(location=str(self.root / "backups")),
            databases=(DatabaseSettings(name="notes", path=self.root / "n.db", kind="sqlite"),),
            state_dir=self.root / "state",
            alerts=alerts,
        )

    def alerts(self, *receivers: AlertSettings, patience: Patience = USUAL) -> Alerts:
        return Alerts(self.settings(*receivers), self.clock, os.environ, "host", patience)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, Clock())


@pytest.fixture
def http() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def told(kind: Any, url: str, **more: Any) -> AlertSettings:
    return AlertSettings(kind=kind, url=Secret(url), **more)


def backup(outcome: str = "stored", *, scheduled: bool = True, suspect: str = "") -> RunFacts:
    """A backup of one database."""
    failed = outcome == "failed"
    message = "source 'notes': /n.db does not exist" if failed else ""
    source = SourceFacts("databases", "notes", outcome, message, suspect=suspect)
    return RunFacts(
        "create", "partial" if failed else "completed", scheduled, "stored", sources=(source,)
    )


def standing(hours: float | None, *, missed: tuple[str, ...] = (), tried: int = 1) -> StatusReport:
    """The status of a system whose one database has a copy of that age."""
    copied = None if hours is None else datetime(2026, 11, 22, tzinfo=UTC)
    late = hours is None or hours > 24
    source = SourceStatus("notes", "databases", copied, hours, 24, hours, late)
    return StatusReport(
        health="healthy",
        reasons=(),
        sources=(source,),
        backups=1,
        newest=copied,
        age_distribution={},
        statistics=Statistics(failures=tried),
        retention="",
        surplus=0,
        next_runs=(),
        missed=missed,
        target_rpo_hours=24,
        unprotected=(),
    )
