"""The facts of a repository as Prometheus reads them: on `/metrics`, or in a file.

One number is worth an alarm above all others, the age of a source's last good copy:

    time() - mcp_backup_source_last_success_timestamp_seconds > mcp_backup_source_rpo_seconds

A source that never had one has the timestamp 0, so that this holds for it too. Times are
timestamps and not ages wherever Prometheus can subtract; then a file that nobody writes any more
raises the alarm as well.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mcp_backup import __version__
from mcp_backup.alerts.alerts import Alerts
from mcp_backup.durable import write_durably
from mcp_backup.engine import Engine
from mcp_backup.errors import UsageError
from mcp_backup.history_facts import Run, RunSource, Totals
from mcp_backup.status import status
from mcp_backup.status_report import StatusReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HEALTH = ("healthy", "at risk", "failing")
_OUTCOMES = ("completed", "partial", "findings", "failed", "cancelled", "interrupted")
_RECENT = 200  # runs looked through for the last of each verb, and of each source
_READABLE = 0o644  # node_exporter runs as another user, and there is no secret in it
_ABSENT = 0.0  # the timestamp of what never happened

Rows = Iterable[tuple[Sequence[str], float]]


class MetricFacts(Struct, frozen=True):
    """What is measured. `last_of_sources` has what became of each in the last run that took it."""

    now: datetime
    status: StatusReport
    last_of_sources: Mapping[tuple[str, str], RunSource]
    last_runs: tuple[Run, ...]
    totals: Totals
    pending_alerts: Mapping[str, int]
    open_alerts: Mapping[str, int]


async def measured(engine: Engine) -> MetricFacts:
    """Gather the facts of an open engine. Changes nothing.

    Raises:
        HistoryUnusable: the history cannot be read.
        StoreError, IntegrityError: the snapshots cannot be.
    """
    report = await status(engine, around=False)
    runs = [run for run in await engine.history.runs(limit=_RECENT) if run.ended is not None]
    last: dict[tuple[str, str], RunSource] = {}
    for run in runs:
        for source in run.sources if run.verb == "create" else ():
            last.setdefault((source.component, source.name), source)
    alerts = Alerts(engine.settings, engine.now, {})
    pending = Counter(dict.fromkeys((alert.label for alert in engine.settings.alerts), 0))
    pending.update(alert.receiver for alert in await alerts.pending())
    open_alerts = Counter({"failure": 0, "overdue": 0, "suspect": 0})
    open_alerts.update(condition.event.value for condition in await alerts.conditions())
    return MetricFacts(
        now=engine.now(),
        status=report,
        last_of_sources=last,
        last_runs=tuple({run.verb: run for run in reversed(runs)}.values()),
        totals=await engine.history.totals(),
        pending_alerts=pending,
        open_alerts=open_alerts,
    )


def exposition(facts: MetricFacts) -> bytes:
    """Return the facts in Prometheus's text format, version 0.0.4."""
    return _text([*_of_repository(facts), *_of_sources(facts), *_of_runs(facts)])


def unopened(code: str) -> bytes:
    """Return what can be said of a repository that cannot be opened: that, and why, by code."""
    return _text([_up(0), _gauge("error", "Why it is not open.", ["code"], [([code], 1)])])


def write_textfile(path: Path, text: bytes) -> None:
    """Make `path` a file of `text`, old or new and never half, that others may read.

    Blocks.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        write_durably(path, text, _READABLE)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            hint="Name a file in the directory that node_exporter was told of, ending in .prom.",
        ) from error


def _of_repository(facts: MetricFacts) -> Iterator[Metric]:
    yield _up(1)
    yield _gauge("info", "The program.", ["version"], [([__version__], 1)])
    states = [([word], float(word == facts.status.health)) for word in HEALTH]
    yield _gauge("health", "1 for the state that holds.", ["state"], states)
    yield _gauge("backups", "Backups in the repository.", [], [([], facts.status.backups)])
    yield _gauge(
        "newest_backup_timestamp_seconds",
        "When the newest backup was begun; 0: there is none.",
        [],
        [([], _stamp(facts.status.newest))],
    )
    if facts.status.newest:
        age = max(0.0, (facts.now - facts.status.newest).total_seconds())
        what = "Age of the newest backup when this was written."
        yield _gauge("newest_backup_age_seconds", what, [], [([], age)])
    yield _gauge(
        "rto_seconds",
        "How long getting everything back may take.",
        [],
        [([], facts.status.target_rto_hours * 3600)],
    )
    if facts.status.recovery_seconds is not None:
        what = "What getting everything back takes, by the last drills."
        yield _gauge("recovery_seconds", what, [], [([], facts.status.recovery_seconds)])
    pending = [([receiver], count) for receiver, count in sorted(facts.pending_alerts.items())]
    what = "Alerts that have not been delivered."
    yield _gauge("alerts_pending", what, ["receiver"], pending)
    told = [([event], count) for event, count in sorted(facts.open_alerts.items())]
    yield _gauge("alerts_open", "What is wrong and was told.", ["event"], told)


def _of_sources(facts: MetricFacts) -> Iterator[Metric]:
    labels = ["component", "source"]

    def each(name: str, what: str, rows: Rows) -> Metric:
        return _gauge(f"source_{name}", what, labels, rows)

    sources = [([source.component, source.source], source) for source in facts.status.sources]
    drilled = [(key, each) for key, each in sources if each.recovery_seconds is not None]
    tried = [([*key], last) for key, last in sorted(facts.last_of_sources.items())]
    yield each(
        "last_success_timestamp_seconds",
        "When the newest copy was begun; 0: there is none.",
        [(key, _stamp(source.last_success)) for key, source in sources],
    )
    yield each(
        "rpo_seconds",
        "How old the newest copy may be.",
        [(key, source.target_rpo_hours * 3600) for key, source in sources],
    )
    yield each(
        "recovery_seconds",
        "What getting it back takes, by its last drill.",
        [(key, source.recovery_seconds or 0.0) for key, source in drilled],
    )
    yield each(
        "drilled_timestamp_seconds",
        "When it was last drilled; 0: never.",
        [(key, _stamp(source.drilled)) for key, source in sources],
    )
    yield each(
        "last_ok",
        "Whether it was copied in the last run that took it.",
        [(key, float(last.outcome != "failed")) for key, last in tried],
    )
    yield each("last_findings", "Findings then.", [(key, last.findings) for key, last in tried])
    yield each("last_read_bytes", "Bytes read then.", [(key, last.read) for key, last in tried])
    yield each("last_added_bytes", "Bytes added.", [(key, last.added) for key, last in tried])
    yield each(
        "last_duration_seconds", "How long it took.", [(key, last.duration) for key, last in tried]
    )


def _of_runs(facts: MetricFacts) -> Iterator[Metric]:
    def each(name: str, what: str, rows: Rows) -> Metric:
        return _gauge(f"last_run_{name}", what, ["verb"], rows)

    runs = [([run.verb], run) for run in facts.last_runs]
    yield _gauge(
        "last_run_outcome",
        "1 for how the last run of a verb ended.",
        ["verb", "outcome"],
        [
            ([run.verb, outcome], float(run.outcome == outcome))
            for run in facts.last_runs
            for outcome in _OUTCOMES
        ],
    )
    yield each("timestamp_seconds", "When it ended.", [(k, _stamp(r.ended)) for k, r in runs])
    yield each("duration_seconds", "How long it took.", [(k, r.duration) for k, r in runs])
    yield each("read_bytes", "Bytes read.", [(k, r.read) for k, r in runs])
    yield each("added_bytes", "Bytes of it that were new.", [(k, r.added) for k, r in runs])
    yield each("stored_bytes", "What those take, stored.", [(k, r.stored) for k, r in runs])
    totals = facts.totals
    yield _counter(
        "runs",
        "Backups on record, by how they ended.",
        ["outcome"],
        [
            (["success"], totals.successes),
            (["partial"], totals.partial),
            (["failure"], totals.failures),
            (["interrupted"], totals.interrupted),
        ],
    )
    yield _counter("read_bytes", "Bytes read by backups.", [], [([], totals.read)])
    yield _counter("stored_bytes", "Bytes stored by backups.", [], [([], totals.stored)])
    yield _counter("run_seconds", "Time spent on backups.", [], [([], totals.seconds)])


class _Facts(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _text(metrics: Sequence[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Facts(metrics))
    return generate_latest(registry)


def _up(value: float) -> Metric:
    what = "Whether the repository can be opened."
    return _gauge("up", what, [], [([], value)])


def _gauge(name: str, what: str, labels: Sequence[str], rows: Rows) -> Metric:
    metric = GaugeMetricFamily(f"mcp_backup_{name}", what, labels=labels)
    for values, value in rows:
        metric.add_metric(values, value)
    return metric


def _counter(name: str, what: str, labels: Sequence[str], rows: Rows) -> Metric:
    metric = CounterMetricFamily(f"mcp_backup_{name}", what, labels=labels)
    for values, value in rows:
        metric.add_metric(values, value)
    return metric


def _stamp(time: datetime | None) -> float:
    return time.timestamp() if time else _ABSENT
