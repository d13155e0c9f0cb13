"""What recovery takes and what it would lose, by measure: from the history and from drills.

    data-loss window   time between two copies of a source; the one until now, and the worst on
                       record, from when each backup began
    time to recover    what the last good drill of the source's newest copy took, scaled up by
                       bytes where the source has grown since
    whole system       opening the repository, finding the backup, and every source after the
                       other in start order, by the same drills

Nobody's time to notice, to decide, or to find a machine is in it. What was never drilled has no
time, and then the whole has none either.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from mcp_backup.drill_facts import DrilledSource
from mcp_backup.engine import Engine
from mcp_backup.history import NewestCopy
from mcp_backup.proof.choosing import in_start_order
from mcp_backup.proof.evidence import Evidence, Record
from mcp_backup.settings import Settings
from mcp_backup.sources.source import SourceSpec

METHOD = (
    "The sum of the last drills, in start order and one after the other: open the repository with "
    "the key, find the backup, then of each source restore, examine, ask the owner's checks, put "
    "in place (a PostgreSQL dump: load into a new database). Scaled up by bytes where a source has "
    "grown since its drill. Not in it: the time people need to notice, to decide, and to find a "
    "machine."
)
_IN_PLACE = frozenset(("place", "load"))  # what is loaded is put in place by name, in no time
_HOUR = timedelta(hours=1)
_COMPARED = 5  # drills in the history that the end of the evidence is compared with


class SourceRecovery(Struct, frozen=True):
    """One source: hours of data that would be lost now and at worst, seconds to have it back.

    `last` is the last drill of its newest copy, good or bad; None: it was never drilled. `scale`
    is how much larger the source has become since.
    """

    source: str
    component: str
    rpo_hours: float | None
    worst_rpo_hours: float | None
    seconds: float | None
    scale: float
    last: DrilledSource | None
    drilled: datetime | None

    @property
    def key(self) -> str:
        """The source with its component."""
        return f"{self.component}/{self.source}"

    @property
    def proven(self) -> bool:
        """Whether its last drill was good."""
        return self.last is not None and self.last.outcome == "proven"


class Recovery(Struct, frozen=True):
    """The whole system, sources in start order. `seconds` is None while something has no time.

    `problems` are what is wrong with the evidence, `failed` what the last drill found wrong that
    concerns no single source, `unproven` why the last drill of a source could not tell.
    """

    sources: tuple[SourceRecovery, ...]
    opening_seconds: float
    seconds: float | None
    target_rpo_hours: float
    target_rto_hours: float
    failed: tuple[str, ...]
    problems: tuple[str, ...]
    unproven: tuple[str, ...] = ()

    @property
    def late(self) -> bool:
        """Whether recovering everything takes longer than the objective allows."""
        return self.seconds is not None and self.seconds > self.target_rto_hours * 3600

    @property
    def unplaced(self) -> tuple[str, ...]:
        """The sources whose time lacks putting them in place, as that needs their server."""
        return tuple(
            each.key
            for each in self.sources
            if each.last is not None
            and each.proven
            and _IN_PLACE.isdisjoint(phase.name for phase in each.last.phases)
        )

    def source(self, component: str, name: str) -> SourceRecovery | None:
        """Return one source's."""
        key = f"{component}/{name}"
        return next((each for each in self.sources if each.key == key), None)

    def reasons(self) -> Iterator[tuple[str, str]]:
        """Yield what the status says of it: a word and why."""
        for fact in self.failed:
            yield "failing", f"the last drill failed: {fact}"
        for each in self.sources:
            if each.last is not None and each.last.outcome == "failed":
                first = each.last.findings[0]
                yield (
                    "failing",
                    f"the last drill of {each.key} failed on {each.last.backup_id}: "
                    f"[{first.code}] {first.subject}: {first.message}",
                )
        if self.late and self.seconds is not None:
            yield (
                "failing",
                f"getting everything back takes {self.seconds / 3600:.1f} hours by the last "
                f"drills, and {self.target_rto_hours:g} are allowed",
            )
        for fact in self.unproven:
            yield "at risk", fact
        for problem in self.problems:
            yield "at risk", f"{problem}; see `mcp-backup evidence`"


async def recovery(engine: Engine, evidence: Evidence | None = None) -> Recovery:
    """Measure. Changes nothing.

    Raises:
        HistoryUnusable: history or evidence cannot be read.
    """
    found = evidence or await compared(engine, await engine.judging.evidence())
    now, history = engine.now(), engine.history
    newest = await history.newest_copies()
    windows = await history.windows()
    sizes = await _sizes(engine, newest)
    drilled = found.last_of_sources()
    sources = []
    for spec in in_start_order(engine.settings):
        key = (str(spec.component), spec.name)
        window = windows.get(key)
        worst = max(window.widest, now - window.newest) if window else None
        copy = newest.get(key)
        drill = drilled.get(f"{spec.component}/{spec.name}")
        lost = now - copy.time if copy else None
        sources.append(_source(spec, (lost, worst), drill, sizes.get(key, 0)))
    return _whole(engine.settings, found, sources)


async def compared(engine: Engine, evidence: Evidence) -> Evidence:
    """Return the evidence, with what the history's last drills say that it lacks.

    Raises:
        HistoryUnusable: the history cannot be read.
    """
    runs = await engine.history.runs(verb="drill", limit=_COMPARED)
    return evidence.against([run.message for run in runs])


def _source(
    spec: SourceSpec,
    lost: tuple[timedelta | None, timedelta | None],
    drill: tuple[Record, DrilledSource] | None,
    size: int,
) -> SourceRecovery:
    now, worst = lost
    last = drill[1] if drill else None
    scale = max(1.0, size / last.size) if last and last.size and size else 1.0
    good = last is not None and last.outcome == "proven"
    return SourceRecovery(
        source=spec.name,
        component=str(spec.component),
        rpo_hours=None if now is None else round(max(now / _HOUR, 0.0), 2),
        worst_rpo_hours=None if worst is None else round(worst / _HOUR, 2),
        seconds=round(last.seconds * scale, 3) if last and good else None,
        scale=round(scale, 3),
        last=last,
        drilled=drill[0].drill.started if drill else None,
    )


def _whole(settings: Settings, evidence: Evidence, sources: Sequence[SourceRecovery]) -> Recovery:
    last = evidence.records[-1].drill if evidence.records else None
    opening = round(sum(phase.seconds for phase in last.phases), 3) if last else 0.0
    times = [each.seconds for each in sources]
    known = [seconds for seconds in times if seconds is not None]
    whole = sources and len(known) == len(times)
    objectives = settings.objectives
    return Recovery(
        sources=tuple(sources),
        opening_seconds=opening,
        seconds=round(opening + sum(known), 3) if whole else None,
        target_rpo_hours=objectives.rpo_hours,
        target_rto_hours=objectives.rto_hours,
        failed=tuple(
            f"{each.source}: [{each.code}] {each.subject}: {each.message}"
            for each in (last.findings if last else ())
        ),
        problems=evidence.problems,
        unproven=tuple(_unproven(evidence, [each.key for each in sources])),
    )


def _unproven(evidence: Evidence, keys: Sequence[str]) -> Iterator[str]:
    """Say of each source whose newest copy was skipped by its last drill, why."""
    last: dict[str, DrilledSource] = {}
    for record in evidence.records:
        last |= {each.key: each for each in record.drill.results if each.pick == "newest"}
    for key in keys:
        if key in last and last[key].outcome == "skipped":
            yield f"the last drill could not prove {key}: {last[key].reason}"


async def _sizes(
    engine: Engine, newest: Mapping[tuple[str, str], NewestCopy]
) -> dict[tuple[str, str], int]:
    """Return how large each source's newest copy is; what cannot be told is left out."""
    wanted = {copy.backup_id for copy in newest.values()}
    found: dict[tuple[str, str], int] = {}
    for backup in engine.catalog.listed or await engine.catalog.backups():
        if not wanted:
            break
        if backup.backup_id not in wanted:
            continue
        wanted.discard(backup.backup_id)
        manifest = await engine.catalog.legible(backup)
        for record in manifest.sources if manifest else ():
            key = (str(record.component), record.name)
            copy = newest.get(key)
            if copy and copy.backup_id == backup.backup_id and record.evidence:
                found[key] = sum(file.size for file in record.evidence.files)
    return found
