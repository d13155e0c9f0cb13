"""When backups are due: the schedule as a pure function from settings and times to slots.

A slot is one moment at which one schedule wants a backup. Its key names it in every process the
same, so that history can say whether it has been run. Schedules with fixed hours follow the clock
on the wall: a time that is skipped when clocks go forward is due at the moment they do, a time
that comes twice is due the first time. Intervals and `*` hours follow time as it passes.

A timezone of `None` is this machine's.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from msgspec import Struct

from mcp_backup.cron import Cron
from mcp_backup.drill_facts import DrillRequest
from mcp_backup.settings import Settings
from mcp_backup.verbs import BackupType, CreateRequest

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DAY = timedelta(days=1)
_WINDOWS = tuple(timedelta(days=days) for days in (0.1, 2, 40, 400, 3000))  # to 29 February


class Schedule(Struct, frozen=True):
    """What is backed up again and again, and when: a cron expression or an interval."""

    name: str
    when: Cron | timedelta
    request: CreateRequest | DrillRequest

    def slots(self, zone: tzinfo | None, since: datetime, until: datetime) -> Iterator["Slot"]:
        """Yield the slots due after `since` and not after `until`, ascending."""
        found = (
            self._by_interval(self.when, since)
            if isinstance(self.when, timedelta)
            else self._by_clock(self.when, zone, since, until)
        )
        last = since
        for slot in found:
            if slot.due > until:
                return
            if slot.due > last:  # several skipped times are due at one moment, and are one slot
                yield slot
                last = slot.due

    def _by_interval(self, every: timedelta, since: datetime) -> Iterator["Slot"]:
        due = _EPOCH + ((since - _EPOCH) // every) * every
        while True:
            due += every
            yield Slot(f"{self.name} {due:%Y-%m-%dT%H:%M:%SZ}", due, self)

    def _by_clock(
        self, cron: Cron, zone: tzinfo | None, since: datetime, until: datetime
    ) -> Iterator["Slot"]:
        day = (since - _DAY).astimezone(zone).date()
        last = (until + _DAY).astimezone(zone).date()
        while day <= last:
            of_day = [
                (due, nominal)
                for nominal in cron.times(day)
                for due in _instants(nominal, zone, every_hour=cron.every_hour)
            ]
            for due, nominal in sorted(of_day):
                named = f"{due:%Y-%m-%dT%H:%MZ}" if cron.every_hour else f"{nominal:%Y-%m-%dT%H:%M}"
                yield Slot(f"{self.name} {named}", due, self)
            day += _DAY


class Slot(Struct, frozen=True):
    """One moment, aware and UTC, at which a schedule wants a backup."""

    key: str
    due: datetime
    schedule: Schedule


def schedules_of(settings: Settings) -> tuple[Schedule, ...]:
    """Return the schedules that the settings ask for; none when scheduling is switched off.

    Sources with the same `every` or `cron` share one schedule, and so one backup.
    """
    wanted = settings.schedule
    if not wanted.enabled:
        return ()
    found = []
    if wanted.daily:
        hour, minute = _clock(wanted.daily)
        every_day = Cron((minute,), (hour,))
        found.append(Schedule("daily", every_day, CreateRequest(BackupType.INCREMENTAL)))
    if wanted.weekly:
        request = CreateRequest(BackupType.FULL)
        found.append(Schedule("weekly", _once_a_week(wanted.weekly), request))
    if wanted.drill:
        found.append(Schedule("drill", _once_a_week(wanted.drill), DrillRequest()))
    return (*found, *_of_sources(settings))


def zone_of(settings: Settings) -> tzinfo | None:
    """Return the timezone of the schedule; None for this machine's."""
    name = settings.schedule.timezone
    return None if name == "local" else ZoneInfo(name)


def slots(
    schedules: Iterable[Schedule], zone: tzinfo | None, since: datetime, until: datetime
) -> list[Slot]:
    """Return all slots due after `since` and not after `until`, ascending."""
    found = [slot for schedule in schedules for slot in schedule.slots(zone, since, until)]
    return sorted(found, key=lambda slot: slot.due)


def next_runs(schedules: Iterable[Schedule], zone: tzinfo | None, now: datetime) -> list[Slot]:
    """Return the next slot of each schedule, ascending."""
    found = (_first_after(schedule, zone, now) for schedule in schedules)
    return sorted((slot for slot in found if slot), key=lambda slot: slot.due)


def missed(
    schedules: Iterable[Schedule],
    zone: tzinfo | None,
    since: datetime,
    taken: Collection[str],
    now: datetime,
) -> list[Slot]:
    """Return what is due now: of each schedule the newest slot after `since`, if not taken.

    Older ones are not made up for: a backup shows today, not the day that was missed.
    """
    found = (_newest(schedule, zone, since, now) for schedule in schedules)
    due = [slot for slot in found if slot and slot.key not in taken]
    return sorted(due, key=lambda slot: slot.due)


def _first_after(schedule: Schedule, zone: tzinfo | None, now: datetime) -> Slot | None:
    for window in _WINDOWS:
        for slot in schedule.slots(zone, now, now + window):
            return slot
    return None


def _newest(schedule: Schedule, zone: tzinfo | None, since: datetime, now: datetime) -> Slot | None:
    if isinstance(schedule.when, timedelta):
        since = max(since, now - schedule.when)
        return next(schedule.slots(zone, since, now), None)
    for window in _WINDOWS:
        found = list(schedule.slots(zone, max(since, now - window), now))
        if found or now - window <= since:
            return found[-1] if found else None
    return None


def _of_sources(settings: Settings) -> Iterator[Schedule]:
    databases: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for source in settings.databases:
        if source.every or source.cron:
            databases[source.every or "", source.cron or ""].append(source.name)
    for (every, cron), names in databases.items():
        request = CreateRequest(BackupType.DATABASE, tuple(names))
        yield Schedule(f"databases {every or cron}", _when(every, cron), request)
    for label, sources, backup_type in (
        ("config", settings.config, BackupType.CONFIG),
        ("workflows", settings.workflows, BackupType.WORKFLOW),
    ):
        others = {(source.every or "", source.cron or "") for source in sources}
        for every, cron in sorted(others - {("", "")}):
            request = CreateRequest(backup_type)
            yield Schedule(f"{label} {every or cron}", _when(every, cron), request)


def _when(every: str, cron: str) -> Cron | timedelta:
    return int(every[:-1]) * _UNITS[every[-1]] if every else Cron.parse(cron)


def _once_a_week(text: str) -> Cron:
    day, _, at = text.partition(" ")
    hour, minute = _clock(at)
    return Cron((minute,), (hour,), days_of_week=frozenset({_WEEKDAYS.index(day)}))


def _clock(text: str) -> tuple[int, int]:
    hour, _, minute = text.partition(":")
    return int(hour), int(minute)


def _instants(nominal: datetime, zone: tzinfo | None, *, every_hour: bool) -> Iterator[datetime]:
    """Yield when the clock on the wall shows a time; the moment of the change when it never does.

    With `every_hour`, a time that comes twice counts twice, and one that is skipped not at all.
    """
    first, second = _utc(nominal, zone, 0), _utc(nominal, zone, 1)
    if first > second:
        if not every_hour:
            yield _change(second, first, zone)
        return
    yield first
    if second > first and every_hour:
        yield second


def _utc(nominal: datetime, zone: tzinfo | None, fold: int) -> datetime:
    # of a time without a zone, `astimezone` takes the offset after the change in place of before
    return datetime.fromtimestamp(nominal.replace(tzinfo=zone, fold=fold).timestamp(), UTC)


def _change(before: datetime, after: datetime, zone: tzinfo | None) -> datetime:
    """Return the moment, to the second, at which clocks were set between two moments."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // timedelta(seconds=2) * timedelta(seconds=1)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after
