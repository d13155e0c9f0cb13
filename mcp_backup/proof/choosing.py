"""What a drill restores: of each source the newest backup that holds it, and an older one."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from mcp_backup.catalog import Backup, Catalog
from mcp_backup.drill_facts import REPOSITORY, SCENARIOS, DrillRequest, Pick, Scenario
from mcp_backup.errors import (
    BackupError,
    IntegrityError,
    ObjectMissing,
    UnknownSource,
    UnsupportedFormat,
    UsageError,
)
from mcp_backup.manifest import SourceRecord
from mcp_backup.settings import Settings
from mcp_backup.sources.source import SourceSpec
from mcp_backup.verbs import SourceFinding

_UNREADABLE = (IntegrityError, ObjectMissing, UnsupportedFormat)
_EITHER: tuple[Pick, ...] = ("newest", "older")

Chance = Callable[[int], int]  # a number below the one given


class Chosen(Struct, frozen=True):
    """One source of one backup, to be drilled."""

    spec: SourceSpec
    backup: Backup
    record: SourceRecord
    pick: Pick


def sources_of(settings: Settings, request: DrillRequest) -> list[SourceSpec]:
    """Return the sources a drill means, in the order in which they are to start.

    Raises:
        UnknownSource: a name that no source has.
        UsageError: nothing is configured that this asks for.
    """
    known = in_start_order(settings)
    scenario = scenario_of(request)
    for name in request.sources:
        if name not in {spec.name for spec in known}:
            raise UnknownSource(name, [spec.name for spec in known])
    specs = [
        spec
        for spec in known
        if (not request.sources or spec.name in request.sources)
        and (scenario is None or not scenario.components or spec.component in scenario.components)
    ]
    if not specs:
        raise UsageError(
            "no source is configured that this drill takes",
            hint="Add [[databases]] or [[config]] to the settings. Nothing was done.",
        )
    return specs


def in_start_order(settings: Settings) -> list[SourceSpec]:
    """Return all sources, those that `recovery.start_order` names first."""
    order = {name: place for place, name in enumerate(settings.recovery.start_order)}
    return sorted(settings.sources(), key=lambda spec: order.get(spec.name, len(order)))


def scenario_of(request: DrillRequest) -> Scenario | None:
    """Return the scenario asked for."""
    return next((each for each in SCENARIOS if each.name == request.scenario), None)


async def choose(
    catalog: Catalog,
    specs: Sequence[SourceSpec],
    request: DrillRequest,
    hostname: str,
    chance: Chance,
) -> tuple[list[Chosen], list[SourceFinding]]:
    """Return what to restore, newest copies first, and what hinders a choice."""
    scenario = scenario_of(request)
    picks = scenario.picks if scenario else _EITHER
    every = [b for b in await catalog.backups() if b.ours and b.snapshot.hostname == hostname]
    findings = [
        SourceFinding(REPOSITORY, "integrity", name, "the snapshot cannot be read")
        for name in catalog.damaged
    ]
    newest: dict[tuple[str, str], Chosen] = {}
    older: list[Chosen] = []
    for spec in specs:
        found = await _first(catalog, every, spec, "newest", findings)
        if found is None:
            message = f"no backup of {hostname} holds it, so nothing of it can be restored"
            findings.append(SourceFinding(spec.name, "no-backup", spec.component, message))
            continue
        newest[spec.component, spec.name] = found
        if "older" in picks:
            rest = [backup for backup in every if backup.id != found.backup.id]
            drawn = await _first(catalog, _shuffled(rest, chance), spec, "older", findings)
            older += [drawn] if drawn else []
    chosen = list(newest.values()) if "newest" in picks else []
    if picks == ("older",):  # where there is only one backup, it is the one to go back to
        drawn_of = {(each.record.component, each.record.name) for each in older}
        chosen = [each for key, each in newest.items() if key not in drawn_of]
    return chosen + older, list(dict.fromkeys(findings))


async def _first(
    catalog: Catalog,
    backups: Iterable[Backup],
    spec: SourceSpec,
    pick: Pick,
    findings: list[SourceFinding],
) -> Chosen | None:
    """Return the first backup that holds the source; put on the way which cannot be read."""
    for backup in backups:
        try:
            manifest = await catalog.manifest(backup)
        except _UNREADABLE as error:
            findings.append(_finding(backup.backup_id, error))
            continue
        record = manifest.source(spec.name, spec.component) if manifest else None
        if record and record.outcome != "failed":
            return Chosen(spec, backup, record, pick)
    return None


def _finding(subject: str, error: BackupError) -> SourceFinding:
    return SourceFinding(REPOSITORY, error.code, subject, str(error))


def _shuffled(backups: Sequence[Backup], chance: Chance) -> Iterator[Backup]:
    """Yield them in an order of chance, drawing only as many as are asked for."""
    left = list(backups)
    while left:
        yield left.pop(chance(len(left)))
