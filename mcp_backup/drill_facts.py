"""What is asked of a drill, and what it tells: facts, as in `verbs`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from msgspec import Struct

from mcp_backup.sources.source import Component
from mcp_backup.verbs import SourceFinding

ScenarioName = Literal["single-server", "database-corruption", "complete-failure", "data-loss"]
Pick = Literal["newest", "older"]
REPOSITORY = "repository"  # the source of findings that concern no single source


class Scenario(Struct, frozen=True):
    """One kind of disaster: what a drill of it restores, and the hours the runbook allows.

    Without `components` all of them. `picks` says which backups of each source.
    """

    name: ScenarioName
    title: str
    hours: tuple[float, float]
    components: tuple[Component, ...] = ()
    picks: tuple[Pick, ...] = ("newest",)


SCENARIOS = (
    Scenario("single-server", "A single server fails", (0.5, 1)),
    Scenario(
        "database-corruption",
        "A database is damaged",
        (1, 2),
        (Component.DATABASES,),
        ("newest", "older"),
    ),
    Scenario("complete-failure", "The whole system is lost", (2, 4)),
    Scenario("data-loss", "Data was deleted", (1, 3), (Component.DATABASES,), ("older",)),
)


class DrillRequest(Struct, frozen=True):
    """Restore into scratch and prove. Empty `sources` mean all that the scenario takes.

    Without a `scenario`, the newest and one random older backup of every source. `minutes` is
    the time budget, the settings' own if None.
    """

    sources: tuple[str, ...] = ()
    scenario: ScenarioName | None = None
    minutes: float | None = None

    @property
    def backup_type(self) -> str:
        """What a schedule says it makes."""
        return "drill"


class Phase(Struct, frozen=True):
    """One timed part of a drill: "open", "find"; of a source "restore", "examine", "checks", ..."""

    name: str
    seconds: float


class DrilledSource(Struct, frozen=True):
    """One source of one backup, drilled.

    "skipped" means that nothing was learned, and `reason` why. `checks` counts the owner's
    queries that passed. `size` is the bytes of its files.
    """

    source: str
    component: Component
    kind: str
    backup_id: str
    snapshot_id: str
    captured: datetime
    pick: Pick
    outcome: Literal["proven", "failed", "skipped"]
    size: int = 0
    phases: tuple[Phase, ...] = ()
    checks: int = 0
    findings: tuple[SourceFinding, ...] = ()
    reason: str = ""

    @property
    def seconds(self) -> float:
        """How long it took to have it back, examined."""
        return round(sum(phase.seconds for phase in self.phases), 3)

    @property
    def key(self) -> str:
        """The source with its component."""
        return f"{self.component}/{self.source}"


class WalkReport(Struct, frozen=True):
    """One walk through a page of the runbook, over. `mode`: "tabletop", "drill" or "live".

    It is `complete` when it came to the page's end with all as printed; else `stopped` says where,
    and `different` that something did not look as printed there.
    """

    page: str
    mode: str
    started: datetime
    seconds: float
    steps: int
    complete: bool
    different: bool = False
    stopped: str = ""


class DrillReport(Struct, frozen=True):
    """One drill, done. It is "incomplete" where nothing failed and something was skipped.

    `findings` concern no single copy: a repository that does not open, a source without a
    backup. `record` is its number in the evidence, `seal` the seal it has there.
    """

    drill_id: str
    scenario: str
    started: datetime
    duration_seconds: float
    hostname: str
    outcome: Literal["proven", "failed", "incomplete"]
    phases: tuple[Phase, ...]
    results: tuple[DrilledSource, ...]
    findings: tuple[SourceFinding, ...]
    record: int = 0
    seal: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.outcome != "failed"

    def every_finding(self) -> Iterator[SourceFinding]:
        """Yield all findings, those about the whole first."""
        yield from self.findings
        for result in self.results:
            yield from result.findings
