"""When backups are due: by the clock on the wall, over its changes, and by intervals."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from time import tzset
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.cron import Cron
from mcp_backup.drill_facts import DrillRequest
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import (
    ConfigSettings,
    DatabaseSettings,
    RepositorySettings,
    ScheduleSettings,
)
from mcp_backup.slots import Schedule, missed, next_runs, schedules_of, slots, zone_of
from mcp_backup.verbs import BackupType, CreateRequest

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)

zones = st.sampled_from((BERLIN, NEW_YORK))
moments = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)).map(  # noqa: DTZ001
    lambda naive: naive.replace(tzinfo=UTC)
)
clocks = st.tuples(st.integers(0, 23), st.integers(0, 59))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(when: str | timedelta, name: str = "s") -> Schedule:
    parsed = when if isinstance(when, timedelta) else Cron.parse(when)
    return Schedule(name, parsed, CreateRequest())


def due(when: str | timedelta, zone: ZoneInfo, since: str, until: str) -> list[str]:
    found = slots([schedule(when)], zone, utc(since), utc(until))
    return [f"{slot.due:%m-%d %H:%M}" for slot in found]


@given(zones, clocks, moments)
def test_every_day_has_one_slot_of_a_daily_schedule_whatever_the_clocks_do(
    zone: ZoneInfo, clock: tuple[int, int], start: datetime
) -> None:
    hour, minute = clock
    found = slots([schedule(f"{minute} {hour} * * *")], zone, start, start + 300 * DAY)
    assert len(found) in (299, 300, 301)
    days = [slot.due.astimezone(zone).date() for slot in found]
    assert days == [days[0] + n * DAY for n in range(len(days))]
    assert len({slot.key for slot in found}) == len(found)
    for slot in found:
        shown = slot.due.astimezone(zone)
        skipped = is_skipped(datetime.combine(shown.date(), time(hour, minute)), zone)
        assert (shown.hour, shown.minute) == ((3, 0) if skipped else (hour, minute))
        assert shown.fold == 0


def is_skipped(nominal: datetime, zone: ZoneInfo) -> bool:
    there = nominal.replace(tzinfo=zone)
    return there.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != nominal


@given(zones, moments, st.integers(1, 200), st.sampled_from(("30 2 * * *", "*/20 * * * *", 7)))
def test_slots_do_not_depend_on_how_the_time_is_cut(
    zone: ZoneInfo, start: datetime, hours: int, when: str | int
) -> None:
    every = schedule(timedelta(minutes=when) if isinstance(when, int) else when)
    middle, end = start + hours * HOUR / 3, start + hours * HOUR
    whole = slots([every], zone, start, end)
    assert whole == [*slots([every], zone, start, middle), *slots([every], zone, middle, end)]
    assert whole == sorted(set(whole), key=lambda slot: slot.due)
    assert all(start < slot.due <= end for slot in whole)


@given(zones, moments)
def test_a_wildcard_hour_leaves_no_hole_when_clocks_change(zone: ZoneInfo, start: datetime) -> None:
    start = start.replace(minute=0, second=0, microsecond=0)
    found = slots([schedule("*/15 * * * *")], zone, start, start + 7 * DAY)
    assert [slot.due for slot in found] == [
        start + (n + 1) * timedelta(minutes=15) for n in range(7 * 96)
    ]


def test_a_time_that_clocks_skip_is_due_when_they_are_set() -> None:
    # Berlin: 2026-03-29, 02:00 CET becomes 03:00 CEST, which is 01:00 UTC
    week = ("2026-03-27T12:00", "2026-03-30T12:00")
    assert due("30 2 * * *", BERLIN, *week) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    assert due("0,30 2,3 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T12:00") == [
        "03-29 01:00",
        "03-29 01:30",
    ]
    # New York: 2026-03-08, 07:00 UTC
    assert due("30 2 * * *", NEW_YORK, "2026-03-07T12:00", "2026-03-08T12:00") == ["03-08 07:00"]


def test_a_time_that_comes_twice_is_due_once() -> None:
    week = ("2026-10-24T12:00", "2026-10-26T12:00")
    assert due("30 2 * * *", BERLIN, *week) == ["10-25 00:30", "10-26 01:30"]
    assert due("30 1 * * *", NEW_YORK, "2026-11-01T00:00", "2026-11-01T12:00") == ["11-01 05:30"]


def test_a_zone_that_leaves_out_a_whole_day_has_its_slot_at_the_change() -> None:
    found = due("0 2 * * *", ZoneInfo("Pacific/Apia"), "2011-12-29T00:00", "2011-12-31T23:59")
    assert found == ["12-29 12:00", "12-30 10:00", "12-30 12:00", "12-31 12:00"]


@given(zones, moments, st.integers(0, 40))
def test_of_each_schedule_only_the_newest_missed_slot_is_caught_up(
    zone: ZoneInfo, since: datetime, days: int
) -> None:
    both = [schedule("0 2 * * *", "daily"), schedule("0 3 * * sun", "weekly")]
    now = since + days * DAY
    everything = slots(both, zone, since, now)
    newest = {slot.schedule.name: slot for slot in everything}
    due_now = missed(both, zone, since, set(), now)
    assert due_now == sorted(newest.values(), key=lambda slot: slot.due)
    taken = {slot.key for slot in due_now}
    assert missed(both, zone, since, taken, now) == []


@pytest.mark.parametrize(
    ("when", "now", "expected"),
    [
        ("0 3 * * 0", "2026-11-20T00:00", "2026-11-22T02:00"),  # cron's 0 is Sunday
        ("0 3 * * 7", "2026-11-20T00:00", "2026-11-22T02:00"),
        ("0 3 * * sun", "2026-11-20T00:00", "2026-11-22T02:00"),
        ("0 3 * * mon-fri", "2026-11-20T03:00", "2026-11-23T02:00"),
        ("0 3 1 * mon", "2026-11-24T00:00", "2026-11-30T02:00"),  # either day is enough
        ("0 3 1 * mon", "2026-11-30T03:00", "2026-12-01T02:00"),
        ("0 0 29 feb *", "2026-11-20T00:00", "2028-02-28T23:00"),
        ("10-50/20 4 * * *", "2026-11-20T03:10", "2026-11-20T03:30"),
        (timedelta(minutes=15), "2026-11-20T03:15", "2026-11-20T03:30"),
        (timedelta(days=1), "2026-11-20T03:15", "2026-11-21T00:00"),
    ],
)
def test_the_next_run_is_the_first_slot_after_now(
    when: str | timedelta, now: str, expected: str
) -> None:
    (slot,) = next_runs([schedule(when)], BERLIN, utc(now))
    assert slot.due == utc(expected)


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *",
     "*/0 * * * *", "5-1 * * * *", "1,,2 * * * *", "0 0 31 4,6 *", "-1 * * * *", "٣ * * * *"],
)  # fmt: skip
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Cron.parse(text)


def test_the_schedules_are_those_of_the_settings(tmp_path: Path) -> None:
    def settings(schedule: ScheduleSettings) -> Settings:
        return Settings(
            repository=RepositorySettings(location=str(tmp_path)),
            schedule=schedule,
            databases=(
                DatabaseSettings(name="a", path=tmp_path / "a.db", every="15m"),
                DatabaseSettings(name="b", path=tmp_path / "b.db", every="15m"),
                DatabaseSettings(name="c", path=tmp_path / "c.db", cron="0 */4 * * *"),
                DatabaseSettings(name="d", path=tmp_path / "d.db"),
            ),
            config=(ConfigSettings(name="e", root=tmp_path, include=("*",), every="1d"),),
        )

    found = {each.name: each.request for each in schedules_of(settings(ScheduleSettings()))}
    assert found == {
        "daily": CreateRequest(BackupType.INCREMENTAL),
        "weekly": CreateRequest(BackupType.FULL),
        "drill": DrillRequest(),
        "databases 15m": CreateRequest(BackupType.DATABASE, ("a", "b")),
        "databases 0 */4 * * *": CreateRequest(BackupType.DATABASE, ("c",)),
        "config 1d": CreateRequest(BackupType.CONFIG),
    }
    assert schedules_of(settings(ScheduleSettings(enabled=False))) == ()
    asked = ScheduleSettings(daily=None, weekly="monday 23:30", timezone="America/New_York")
    runs = next_runs(
        schedules_of(settings(asked)), zone_of(settings(asked)), utc("2026-11-20T00:00")
    )
    assert {run.schedule.name: run.due for run in runs}["weekly"] == utc("2026-11-24T04:30")
    assert "daily" not in {run.schedule.name for run in runs}
    assert zone_of(settings(ScheduleSettings())) is None


def test_this_machines_timezone_is_the_one_of_none(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    zone_by_environment(monkeypatch, request, "Europe/Berlin")
    at_half_past_two = [schedule("30 2 * * *")]
    start = utc("2026-01-01T00:00")
    local = slots(at_half_past_two, None, start, start + 365 * DAY)
    assert local == slots(at_half_past_two, BERLIN, start, start + 365 * DAY)


def zone_by_environment(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, name: str
) -> None:
    def undo() -> None:
        monkeypatch.undo()
        tzset()

    monkeypatch.setenv("TZ", name)
    tzset()
    request.addfinalizer(undo)


def test_a_day_far_from_any_change_is_where_one_expects_it() -> None:
    assert date(2026, 11, 22).isoweekday() == 7
    assert due("0 3 * * sun", NEW_YORK, "2026-11-16T00:00", "2026-11-23T00:00") == ["11-22 08:00"]
