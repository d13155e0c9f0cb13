"""The hooks that runs and status call, and the task that delivers.

Two kinds of news. A *condition* lasts: it is told when it begins and when it is over. A *ping*
says how the last scheduled backup went, each time, for services that miss it when it stays away;
of several that could not be delivered only the last matters.
"""

import logging
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path

import anyio
from anyio import to_thread
from msgspec import Struct

from mcp_backup.alerts.alert import Alert, Condition, RunFacts, SourceFacts
from mcp_backup.alerts.outbox import Letter, OpenCondition, Outbox, PendingAlert
from mcp_backup.alerts.sending import Patience, Undelivered, send
from mcp_backup.errors import BackupError
from mcp_backup.history_facts import Run
from mcp_backup.settings import Settings
from mcp_backup.settings_alerts import AlertSettings, Event
from mcp_backup.status_report import SourceStatus, StatusReport

logger = logging.getLogger(__name__)

_WATCHED = ("create", "verify", "check", "prune", "forget", "drill")  # not what a person waits for
_NEWS = timedelta(days=1)  # older runs are history: a new outbox does not tell of them
_LOOK_SECONDS = 30.0  # how often to look for what another process has queued, or a clock's jump
_PING = "ping"
_REPOSITORY = "repository"
_MISSED = "schedule missed"


class Delivery(Struct, frozen=True):
    """One receiver, tried now. `trouble` is "" where the alert arrived."""

    receiver: str
    trouble: str


def outbox_of(settings: Settings) -> Path:
    """Return where a repository's alerts are kept. It can be had even if the repository cannot."""
    name = blake2b(settings.repository.location.encode(), digest_size=8).hexdigest()
    return settings.state_dir / "alerts" / f"{name}.db"


class Alerts:
    """Tells the receivers in the settings.

    Without any it keeps still: another process on the same repository may have some, and would
    hold what this one noted for told.
    """

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], datetime],
        environ: Mapping[str, str],
        host: str = "",
        patience: Patience | None = None,
    ) -> None:
        """Use the outbox of these settings' repository; `environ` is what commands run in."""
        self._receivers = {alert.label: alert for alert in settings.alerts}
        self._sources = frozenset(
            f"{component}/{source.name}"
            for component, sources in (
                ("databases", settings.databases),
                ("config", settings.config),
                ("workflows", settings.workflows),
            )
            for source in sources
        )
        self._outbox = Outbox(outbox_of(settings), now)
        self._now = now
        self._environ = environ
        self._host = host or socket.gethostname()
        self._patience = patience or Patience()
        self._queued = anyio.Event()

    async def started(self, *, scheduled: bool) -> None:
        """Ping that a backup begins. Does not wait for a receiver, and does not fail."""
        if scheduled:
            await self._ping(Event.START, "backup", "the scheduled backup has begun")

    async def follow(self, runs: Sequence[Run]) -> None:
        """Tell what is news in the history's newest runs, whoever ran them; each is told of once.

        Does not wait for a receiver, and does not fail. A process that dies in here leaves a run
        untold; a trouble that lasts is told with the next.
        """
        since = self._now() - _NEWS
        recent = {_key(run): run for run in reversed(runs) if (run.ended or run.begun) > since}
        new = await to_thread.run_sync(self._outbox.claim_runs, recent) if self._receivers else ()
        for key, run in recent.items():
            if key not in new:
                continue
            if run.ended is not None:
                await self.after_run(RunFacts.of_run(run))
            elif run.verb == "create":
                await self.started(scheduled=run.asker.door == "schedule")

    async def after_run(self, run: RunFacts) -> None:
        """Tell what a run has brought to light, or put right.

        Does not wait for a receiver, and does not fail. A cancelled run tells nothing, nor does
        a request that could not be meant, unless the schedule made it.
        """
        if run.verb not in _WATCHED or run.outcome == "cancelled":
            return
        if run.asked_wrongly and not run.scheduled:
            return
        await self._settle(f"{run.verb} failed", _failure_of(run))
        for source in run.sources:
            await self._settle_source(source)
        if run.verb == "create" and run.scheduled:
            await self._ping(*_ping_of(run))

    async def check(self, status: StatusReport) -> None:
        """Tell which sources are overdue and which runs were missed, and which no longer are.

        Before anything was ever tried nothing is late. Conditions of sources that are no longer
        in the settings end without a word.
        """
        counted = status.statistics
        tried = bool(counted.successes or counted.partial or counted.failures)
        late = {
            f"{each.component}/{each.source}": _lateness(each)
            for each in status.sources
            if each.overdue and (tried or each.last_success)
        }
        for open_condition in await self.conditions():
            source, _, kind = open_condition.key.rpartition(" ")
            if "/" in source and source not in self._sources:
                await to_thread.run_sync(self._outbox.end, open_condition.key, lambda _: ())
            elif kind == "overdue" and source not in late:
                await self._settle(open_condition.key, None)
        hint = "Run `mcp-backup create`, and look at `mcp-backup status`."
        for source, message in late.items():
            component, _, name = source.partition("/")
            subject, key = f"{name} ({component})", f"{source} overdue"
            await self._settle(key, Condition(key, Event.OVERDUE, subject, message, hint))
        told = f"not made when it was due: {', '.join(status.missed)}"
        missed = Condition(_MISSED, Event.OVERDUE, "scheduled backup", told, hint)
        await self._settle(_MISSED, missed if status.missed else None)

    async def unopened(self, error: BackupError) -> None:
        """Tell that the repository cannot be opened, so that nothing can run at all."""
        condition = Condition(_REPOSITORY, Event.FAILURE, "the repository", str(error), error.hint)
        if await self._settle(_REPOSITORY, condition):
            await self._ping(Event.FAILURE, "the repository", str(error), error.hint)

    async def opened(self) -> None:
        """Tell that the repository can be opened again, if it could not."""
        await self._settle(_REPOSITORY, None)

    async def conditions(self) -> list[OpenCondition]:
        """Return what has been told and is not over, oldest first."""
        return await to_thread.run_sync(self._outbox.conditions)

    async def pending(self) -> list[PendingAlert]:
        """Return what has not been delivered, oldest first."""
        return await to_thread.run_sync(self._outbox.pending)

    @property
    def has_news(self) -> bool:
        """Whether something was queued by this object and not yet tried by `keep_delivering`."""
        return self._queued.is_set()

    async def deliver(self) -> None:
        """Try everything that is due, all receivers at once; what fails is tried again later.

        Bounded: a receiver that fails is left for this time. Cancelled, an alert may arrive twice.
        """
        async with anyio.create_task_group() as tasks:
            for receiver in self._receivers.values():
                tasks.start_soon(self._deliver_to, receiver)

    async def keep_delivering(self) -> None:
        """Deliver what is due, whenever it is, until cancelled; a task of whoever keeps running."""
        while True:
            self._queued = anyio.Event()
            await self.deliver()
            due = await to_thread.run_sync(self._outbox.next_due)
            wait = (due - self._now()).total_seconds() if due else _LOOK_SECONDS
            with anyio.move_on_after(min(max(wait, 1.0), _LOOK_SECONDS)):
                await self._queued.wait()

    async def test(self) -> list[Delivery]:
        """Send every receiver a test alert, now and once, and say how each of them fared."""
        alert = self._alert(Event.TEST, "alerts", "this is how an alert arrives", "")
        results: list[Delivery] = []

        async def one(receiver: AlertSettings) -> None:
            results.append(Delivery(receiver.label, await self._tried(receiver, alert)))

        async with anyio.create_task_group() as tasks:
            for receiver in self._receivers.values():
                tasks.start_soon(one, receiver)
        return sorted(results, key=lambda result: list(self._receivers).index(result.receiver))

    async def _settle_source(self, source: SourceFacts) -> None:
        where = f"{source.component}/{source.name}"
        subject = f"{source.name} ({source.component})"
        if source.outcome == "failed":
            key = f"{where} failed"
            await self._settle(
                key, Condition(key, Event.FAILURE, subject, source.message, source.hint)
            )
            return  # what an older copy looks like is as it was
        await self._settle(f"{where} failed", None)
        key = f"{where} suspect"
        hint = (
            "The backup is stored, and does not count as good. Look at the live data before it "
            "is needed."
        )
        suspect = Condition(key, Event.SUSPECT, subject, source.suspect, hint)
        await self._settle(key, suspect if source.suspect else None)

    async def _settle(self, key: str, condition: Condition | None) -> bool:
        """Note that a condition is there, or (None) that it is not; tell if that is news."""
        if not self._receivers:
            return False
        if condition is None:
            changed = await to_thread.run_sync(self._outbox.end, key, self._letters_of_end)
            if changed:
                logger.info("recovered: condition=%r", key)
        else:
            now = self._now()
            alert = self._alert(
                condition.event, condition.subject, condition.message, condition.hint
            )
            was = OpenCondition(key, condition.event, condition.subject, condition.message, now)
            letters = _letters(alert, self._hearing(condition.event))
            changed = await to_thread.run_sync(self._outbox.begin, was, letters)
            if changed:
                logger.warning("alert: condition=%r fact=%s", key, condition.message)
        if changed:
            self._queued.set()
        return changed

    def _letters_of_end(self, was: OpenCondition) -> Sequence[tuple[str, Alert]]:
        alert = self._alert(
            Event.RECOVERY, was.subject, f"over: {was.message}", "", since=was.since
        )
        return _letters(alert, self._hearing(Event.RECOVERY, was.event))

    async def _ping(self, event: Event, subject: str, message: str, hint: str = "") -> None:
        alert = self._alert(event, subject, message, hint)
        pinged = [
            receiver
            for receiver in self._receivers.values()
            if event in receiver.on
            and (receiver.kind == "healthchecks" or event in (Event.START, Event.SUCCESS))
        ]
        replace = partial(self._outbox.replace, _PING, _letters(alert, pinged))
        await to_thread.run_sync(replace)
        self._queued.set()

    def _hearing(self, *events: Event) -> list[AlertSettings]:
        """Return who is told of conditions, and wants to hear of all these events."""
        return [
            receiver
            for receiver in self._receivers.values()
            if receiver.kind != "healthchecks" and all(event in receiver.on for event in events)
        ]

    def _alert(
        self, event: Event, subject: str, message: str, hint: str, since: datetime | None = None
    ) -> Alert:
        now = self._now()
        identity = secrets.token_hex(8)
        return Alert(identity, event, subject, message, hint, self._host, now, since=since or now)

    async def _deliver_to(self, receiver: AlertSettings) -> None:
        while letter := await to_thread.run_sync(self._outbox.claim, receiver.label):
            if not await self._delivered(receiver, letter):
                return

    async def _delivered(self, receiver: AlertSettings, letter: Letter) -> bool:
        try:
            trouble = await self._tried(receiver, letter.alert)
        except BaseException:  # cancelled: somebody else may try at once
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._outbox.released, letter)
            raise
        with anyio.CancelScope(shield=True):
            if trouble:
                await to_thread.run_sync(self._outbox.postponed, letter, trouble)
            else:
                await to_thread.run_sync(self._outbox.delivered, letter)
        return not trouble

    async def _tried(self, receiver: AlertSettings, alert: Alert) -> str:
        """Try once; return what was in the way, or ""."""
        try:
            await send(receiver, alert, self._environ, self._patience)
        except Undelivered as error:
            logger.warning(
                "alert not delivered: receiver=%s event=%s trouble=%s",
                receiver.label,
                alert.event,
                error,
            )
            return str(error)
        logger.info("alert delivered: receiver=%s event=%s", receiver.label, alert.event)
        return ""


def _key(run: Run) -> str:
    """Name a run's beginning or its end; a history that was lost counts from one again."""
    return f"{run.id} {run.begun.isoformat()} {'begun' if run.ended is None else 'ended'}"


def _lateness(source: SourceStatus) -> str:
    if source.rpo_hours is None:
        return "it has never been backed up"
    return (
        f"the newest copy is {source.rpo_hours:.1f} hours old, and "
        f"{source.target_rpo_hours:g} are allowed"
    )


def _letters(alert: Alert, receivers: Iterable[AlertSettings]) -> Sequence[tuple[str, Alert]]:
    return [(receiver.label, alert) for receiver in receivers]


def _failure_of(run: RunFacts) -> Condition | None:
    """Return what is wrong with the run as a whole; None where it did what it was to do."""
    damage = run.outcome == "findings" and run.verb != "create"  # a backup's are its sources'
    if run.outcome != "failed" and not damage:
        return None
    message = run.message or f"{run.verb} found damage"
    return Condition(f"{run.verb} failed", Event.FAILURE, run.verb, message, run.hint)


def _ping_of(run: RunFacts) -> tuple[Event, str, str, str]:
    failed = [source for source in run.sources if source.outcome == "failed"]
    suspect = [source for source in run.sources if source.suspect]
    if run.outcome == "failed" or failed:
        told = "; ".join(f"{source.name}: {source.message}" for source in failed)
        return Event.FAILURE, "backup", told or run.message, run.hint
    if suspect:
        told = "; ".join(f"{source.name}: {source.suspect}" for source in suspect)
        return Event.SUSPECT, "backup", told, ""
    return Event.SUCCESS, "backup", run.message, ""
