"""A year of backups in Berlin, forgetting after each day, and exactly what is left of it."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

from mcp_backup.retention import Candidate, Copy, Policy, Verdict, judge

BERLIN = ZoneInfo("Europe/Berlin")
POLICY = Policy(daily=30, weekly=12, monthly=6, minimum=3, timezone=BERLIN)

NOTES, TASKS, PROJECT = "databases/notes", "databases/tasks", "config/project"
GOOD = tuple(Copy(source, proven=True) for source in (NOTES, TASKS, PROJECT))
NO_TASKS = (*GOOD[::2], Copy(TASKS, "failed"))
SHRUNKEN = (Copy(NOTES, proven=True, suspect=True), *GOOD[1:])

ASLEEP = {  # days without a run, and when the machine woke up and made up for it
    date(2026, 2, 10): date(2026, 2, 19),
    date(2026, 12, 20): date(2026, 12, 24),
}
WOKEN = {date(2026, 2, 20): time(9, 30), date(2026, 12, 25): time(18, 5)}
FAILED = {date(2026, 12, day) for day in (1, 2, 3, 4, 5, 6, 7)}  # tasks was not there
SUSPECT = {date(2026, 12, 10)}  # notes had lost most of its rows
NOTHING = {date(2026, 8, 31)}  # every source failed, so there is no backup of that month's end
FLOODS = {date(2026, 6, 15): time(11), date(2026, 12, 27): time(23, 30)}  # the latter until 0:30


def runs(day: date) -> Iterator[tuple[datetime, str, tuple[Copy, ...]]]:
    """What runs on a day: daily at 02:00, Sundays at 03:00 too, and what an agent asks for."""
    if any(first <= day <= last for first, last in ASLEEP.items()) or day in NOTHING:
        return
    copies = NO_TASKS if day in FAILED else SHRUNKEN if day in SUSPECT else GOOD
    at = WOKEN.get(day, time(2))
    yield datetime.combine(day, at, BERLIN), "full", copies
    if day.weekday() == 6 and day not in WOKEN:
        yield datetime.combine(day, time(3), BERLIN) + timedelta(minutes=1), "full", copies
    if day in FLOODS:
        begin = datetime.combine(day, FLOODS[day], BERLIN).astimezone(UTC)
        for number in range(100):
            yield begin + number * timedelta(seconds=36), "database", GOOD[:1]


def lived(until: date) -> list[tuple[str, tuple[str, ...]]]:
    """Live through the year until that day has ended; return what is left and why."""
    numbers, left = count(), list[Candidate]()
    verdicts: tuple[Verdict, ...] = ()
    day = date(2026, 1, 1)
    while day <= until:
        for at, kind, copies in runs(day):
            left.append(Candidate(f"{next(numbers):04d}", at.astimezone(UTC), kind, copies))
        evening = datetime.combine(day, time(23, 59, 59), BERLIN).astimezone(UTC)
        verdicts = judge(left, POLICY, evening)
        stay = {verdict.id for verdict in verdicts if verdict.reasons}
        left = [each for each in left if each.id in stay]
        day += timedelta(days=1)
    return [
        (f"{verdict.time.astimezone(BERLIN):%m-%d %a %H:%M}", verdict.reasons)
        for verdict in verdicts
        if verdict.reasons
    ]


LEFT = [
    ("12-31 Thu 02:00", ("latest", "latest proven", "daily 1/30", "weekly 1/12", "monthly 1/6")),
    ("12-30 Wed 02:00", ("daily 2/30",)),
    ("12-29 Tue 02:00", ("daily 3/30",)),
    ("12-28 Mon 02:00", ("daily 4/30",)),
    ("12-27 Sun 23:59", ("daily 5/30", "weekly 2/12")),
    (
        "12-27 Sun 03:01",
        (
            "daily 5/30 of config/project, databases/tasks, everything",
            "weekly 2/12 of config/project, databases/tasks, everything",
        ),
    ),
    ("12-26 Sat 02:00", ("daily 6/30",)),
    ("12-25 Fri 18:05", ("daily 7/30",)),
    ("12-19 Sat 02:00", ("daily 8/30", "weekly 3/12")),
    ("12-18 Fri 02:00", ("daily 9/30",)),
    ("12-17 Thu 02:00", ("daily 10/30",)),
    ("12-16 Wed 02:00", ("daily 11/30",)),
    ("12-15 Tue 02:00", ("daily 12/30",)),
    ("12-14 Mon 02:00", ("daily 13/30",)),
    ("12-13 Sun 03:01", ("daily 14/30", "weekly 4/12")),
    ("12-12 Sat 02:00", ("daily 15/30",)),
    ("12-11 Fri 02:00", ("daily 16/30",)),
    (
        "12-10 Thu 02:00",
        (
            "daily 17/30 of config/project, databases/tasks",
            "suspect, daily 1/30 of databases/notes, everything",
            "suspect, monthly 1/6 of databases/notes, everything",
            "suspect, weekly 1/12 of databases/notes, everything",
        ),
    ),
    (
        "12-09 Wed 02:00",
        (
            "daily 17/30 of databases/notes, everything",
            "daily 18/30 of config/project, databases/tasks",
            "good before a suspect one of databases/notes, everything",
        ),
    ),
    (
        "12-08 Tue 02:00",
        (
            "daily 18/30 of databases/notes, everything",
            "daily 19/30 of config/project, databases/tasks",
        ),
    ),
    (
        "12-07 Mon 02:00",
        ("daily 19/30 of databases/notes, everything", "daily 20/30 of config/project"),
    ),
    (
        "12-06 Sun 03:01",
        (
            "daily 20/30 of databases/notes, everything",
            "daily 21/30 of config/project",
            "weekly 5/12 of config/project, databases/notes",
        ),
    ),
    (
        "12-05 Sat 02:00",
        ("daily 21/30 of databases/notes, everything", "daily 22/30 of config/project"),
    ),
    (
        "12-04 Fri 02:00",
        ("daily 22/30 of databases/notes, everything", "daily 23/30 of config/project"),
    ),
    (
        "12-03 Thu 02:00",
        ("daily 23/30 of databases/notes, everything", "daily 24/30 of config/project"),
    ),
    (
        "12-02 Wed 02:00",
        ("daily 24/30 of databases/notes, everything", "daily 25/30 of config/project"),
    ),
    (
        "12-01 Tue 02:00",
        ("daily 25/30 of databases/notes, everything", "daily 26/30 of config/project"),
    ),
    (
        "11-30 Mon 02:00",
        (
            "daily 20/30 of databases/tasks",
            "daily 26/30 of databases/notes, everything",
            "daily 27/30 of config/project",
            "weekly 5/12 of databases/tasks, everything",
            "monthly 2/6",
        ),
    ),
    (
        "11-29 Sun 03:01",
        (
            "daily 21/30 of databases/tasks",
            "daily 27/30 of databases/notes, everything",
            "daily 28/30 of config/project",
            "weekly 6/12",
        ),
    ),
    (
        "11-28 Sat 02:00",
        (
            "daily 22/30 of databases/tasks",
            "daily 28/30 of databases/notes, everything",
            "daily 29/30 of config/project",
        ),
    ),
    (
        "11-27 Fri 02:00",
        (
            "daily 23/30 of databases/tasks",
            "daily 29/30 of databases/notes, everything",
            "daily 30/30 of config/project",
        ),
    ),
    (
        "11-26 Thu 02:00",
        ("daily 24/30 of databases/tasks", "daily 30/30 of databases/notes, everything"),
    ),
    ("11-25 Wed 02:00", ("daily 25/30 of databases/tasks",)),
    ("11-24 Tue 02:00", ("daily 26/30 of databases/tasks",)),
    ("11-23 Mon 02:00", ("daily 27/30 of databases/tasks",)),
    ("11-22 Sun 03:01", ("daily 28/30 of databases/tasks", "weekly 7/12")),
    ("11-21 Sat 02:00", ("daily 29/30 of databases/tasks",)),
    ("11-20 Fri 02:00", ("daily 30/30 of databases/tasks",)),
    ("11-15 Sun 03:01", ("weekly 8/12",)),
    ("11-08 Sun 03:01", ("weekly 9/12",)),
    ("11-01 Sun 03:01", ("weekly 10/12",)),
    ("10-31 Sat 02:00", ("monthly 3/6",)),
    ("10-25 Sun 03:01", ("weekly 11/12",)),
    ("10-18 Sun 03:01", ("weekly 12/12",)),
    ("09-30 Wed 02:00", ("monthly 4/6",)),
    ("08-30 Sun 03:01", ("monthly 5/6",)),
    ("07-31 Fri 02:00", ("monthly 6/6",)),
]
SPRING = [
    ("03-30 Mon 02:00", ("latest", "latest proven", "daily 1/30", "weekly 1/12", "monthly 1/6")),
    ("03-29 Sun 03:01", ("daily 2/30", "weekly 2/12")),
    ("03-28 Sat 02:00", ("daily 3/30",)),
    ("03-27 Fri 02:00", ("daily 4/30",)),
    ("03-26 Thu 02:00", ("daily 5/30",)),
    ("03-25 Wed 02:00", ("daily 6/30",)),
]


def test_a_year_of_runs_failures_sleeps_and_floods_leaves_exactly_these() -> None:
    assert lived(date(2026, 12, 31)) == LEFT


def test_the_night_that_has_no_two_o_clock_has_its_backup() -> None:
    assert lived(date(2026, 3, 30))[: len(SPRING)] == SPRING
