"""Retention: what must be true of every history, and what each rule does in a small one."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from mcp_backup.retention import EVERYTHING, Candidate, Copy, Policy, judge

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = ("databases/notes", "databases/tasks", "config/project")
GOOD = tuple(Copy(source, proven=True) for source in SOURCES)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Kiritimati", "America/St_Johns")
LATER = datetime(2030, 1, 1, tzinfo=UTC)

_numbers = count()


def at(
    days: float, *copies: Copy, kind: str = "full", ours: bool = True, readable: bool = True
) -> Candidate:
    """A backup made so many days after BEGIN; of all sources, and good, unless told otherwise."""
    identity = f"{next(_numbers):064x}"
    time = BEGIN + timedelta(days=days)
    return Candidate(identity, time, kind, copies or GOOD, ours=ours, readable=readable)


def kept(candidates: Iterable[Candidate], policy: Policy, now: datetime = LATER) -> set[str]:
    return {verdict.id for verdict in judge(candidates, policy, now) if verdict.reasons}


def ids(candidates: Iterable[Candidate]) -> set[str]:
    return {each.id for each in candidates}


def reasons(candidates: Sequence[Candidate], policy: Policy) -> list[tuple[str, ...]]:
    """The reasons of each, in the order given."""
    by_id = {verdict.id: verdict.reasons for verdict in judge(candidates, policy, LATER)}
    return [by_id[each.id] for each in candidates]


flags = st.sampled_from(
    [(True, False), (True, False), (True, False), (False, False), (False, True), (True, True)]
)


outcomes: st.SearchStrategy[Literal["stored", "unchanged", "failed"]]
outcomes = st.sampled_from(["stored", "stored", "unchanged", "failed"])


@st.composite
def copies(draw: st.DrawFn) -> tuple[Copy, ...]:
    found = []
    for source in SOURCES:
        if draw(st.integers(0, 3)):
            outcome = draw(outcomes)
            proven, suspect = draw(flags)
            found.append(Copy(source, outcome, proven, suspect))
    return tuple(found)


@st.composite
def candidates(draw: st.DrawFn, days: int = 45) -> Candidate:
    minutes = draw(st.integers(0, days - 1)) * 1440 + draw(st.sampled_from([0, 1, 120, 700, 1439]))
    return Candidate(
        id=f"{next(_numbers):064x}",
        time=BEGIN + timedelta(minutes=minutes),
        backup_type=draw(st.sampled_from(["full", "full", "incremental", "database", "config"])),
        copies=draw(copies()),
        host=draw(st.sampled_from(["here", "here", "here", "there"])),
        ours=draw(st.integers(0, 9)) > 0,
        readable=draw(st.integers(0, 9)) > 0,
    )


histories = st.lists(candidates(), max_size=40)
policies = st.builds(
    Policy,
    daily=st.integers(0, 5),
    weekly=st.integers(0, 3),
    monthly=st.integers(0, 2),
    minimum=st.integers(0, 4),
    timezone=st.sampled_from(ZONES).map(ZoneInfo),
)
nows = st.integers(0, 60).map(lambda days: BEGIN + timedelta(days=days))


def shelves(history: Iterable[Candidate], now: datetime) -> dict[tuple[str, str], list[Candidate]]:
    """The backups that hold each source, newest first; only those that are judged by slots."""
    found: dict[tuple[str, str], list[Candidate]] = {}
    for each in sorted(history, key=lambda one: (one.time, one.id), reverse=True):
        if each.ours and each.readable and each.time <= now:
            for copy in each.copies:
                if copy.outcome != "failed":
                    found.setdefault((each.host, copy.source), []).append(each)
    return found


def copy_of(source: str, candidate: Candidate) -> Copy:
    return next(copy for copy in candidate.copies if copy.source == source)


@given(histories, policies, nows)
def test_every_snapshot_gets_one_verdict_newest_first(
    history: list[Candidate], policy: Policy, now: datetime
) -> None:
    verdicts = judge(history, policy, now)
    assert {(each.id, each.time) for each in history} == {(v.id, v.time) for v in verdicts}
    assert len(verdicts) == len(history)
    assert [v.time for v in verdicts] == sorted((v.time for v in verdicts), reverse=True)
    assert judge(reversed(history), policy, now) == verdicts


@given(histories, policies, nows)
def test_the_newest_and_the_newest_proven_of_every_source_stay(
    history: list[Candidate], policy: Policy, now: datetime
) -> None:
    stay = kept(history, policy, now)
    for (_, source), shelf in shelves(history, now).items():
        good = [each for each in shelf if not copy_of(source, each).suspect]
        proven = [each for each in good if copy_of(source, each).proven]
        for row in (shelf, good, proven):
            assert ids(row[:1]) <= stay


@given(histories, policies, nows)
def test_the_minimum_of_every_source_stays_good_ones_first(
    history: list[Candidate], policy: Policy, now: datetime
) -> None:
    stay = kept(history, policy, now)
    for (_, source), shelf in shelves(history, now).items():
        good = [each for each in shelf if not copy_of(source, each).suspect]
        for row in (shelf, good):
            assert len(ids(row) & stay) >= min(policy.minimum, len(row))


@given(histories, policies, nows)
def test_what_is_not_ours_unreadable_or_from_the_future_stays_and_pushes_nothing_out(
    history: list[Candidate], policy: Policy, now: datetime
) -> None:
    stay = kept(history, policy, now)
    plain = [each for each in history if each.ours and each.readable and each.time <= now]
    assert ids(history) - ids(plain) <= stay
    assert stay & ids(plain) == kept(plain, policy, now)


@given(histories, policies, nows, st.data())
def test_what_was_kept_is_kept_again_when_others_are_gone(
    history: list[Candidate], policy: Policy, now: datetime, data: st.DataObject
) -> None:
    stay = kept(history, policy, now)
    dropped = sorted(ids(history) - stay)
    gone = set(data.draw(st.lists(st.sampled_from(dropped)))) if dropped else set()
    for left in (stay, ids(history) - gone):
        rest = [each for each in history if each.id in left]
        assert stay <= kept(rest, policy, now)


@given(histories, policies, nows, st.integers(0, 400))
def test_a_clock_that_is_behind_drops_nothing_that_should_stay(
    history: list[Candidate], policy: Policy, now: datetime, days: int
) -> None:
    assert kept(history, policy, now) <= kept(history, policy, now - timedelta(days=days))


@given(histories, policies, st.integers(0, 4000))
def test_a_clock_that_is_ahead_drops_nothing_that_should_stay(
    history: list[Candidate], policy: Policy, days: int
) -> None:
    now = BEGIN + timedelta(days=60)
    assert kept(history, policy, now + timedelta(days=days)) == kept(history, policy, now)


@given(histories, policies, st.lists(candidates(), max_size=10))
def test_suspect_backups_push_no_good_one_out(
    history: list[Candidate], policy: Policy, more: list[Candidate]
) -> None:
    assume(not policy.keeps_everything)
    suspect = [
        each._replace(copies=tuple(copy._replace(suspect=True) for copy in each.copies))
        for each in more
    ]
    good = [
        each._replace(copies=tuple(copy._replace(suspect=False) for copy in each.copies))
        for each in history
    ]
    assert kept(good, policy) <= kept([*good, *suspect], policy)


@given(
    histories,
    policies,
    copies(),
    st.sampled_from(["full", "database", "config"]),
    st.integers(2, 100),
)
def test_a_flood_pushes_out_no_more_than_one_backup_in_its_place(
    history: list[Candidate], policy: Policy, flooding: tuple[Copy, ...], kind: str, size: int
) -> None:
    noon = BEGIN + timedelta(days=50, hours=4)  # one day in all ZONES
    flood = [
        Candidate(
            f"{next(_numbers):064x}", noon + timedelta(seconds=30 * n), kind, flooding, "here"
        )
        for n in range(size)
    ]
    with_one = kept([*history, flood[-1]], policy) & ids(history)
    assert kept([*history, *flood], policy) & ids(history) == with_one


@given(histories, policies, nows)
def test_no_more_stay_than_the_policy_has_slots_for(
    history: list[Candidate], policy: Policy, now: datetime
) -> None:
    assume(not policy.keeps_everything)
    sources = len(shelves(history, now)) + 2  # the whole of each host
    slots = policy.daily + policy.weekly + policy.monthly
    most = sources * (2 * slots + slots + 3 + 2 * policy.minimum + policy.minimum)
    plain = [each for each in history if each.ours and each.readable and each.time <= now]
    held = [each for each in plain if any(copy.outcome != "failed" for copy in each.copies)]
    assert len(kept(history, policy, now) & ids(held)) <= most


def test_each_tier_keeps_the_newest_of_its_newest_slots() -> None:
    history = [at(day + 0.5) for day in range(100)]  # from 1 January to 10 April
    found = judge(history, Policy(3, 2, 2, 0, ZoneInfo("UTC")), LATER)
    assert [(f"{each.time:%m-%d}", each.reasons) for each in found if each.reasons] == [
        ("04-10", ("latest", "latest proven", "daily 1/3", "weekly 1/2", "monthly 1/2")),
        ("04-09", ("daily 2/3",)),
        ("04-08", ("daily 3/3",)),
        ("04-05", ("weekly 2/2",)),
        ("03-31", ("monthly 2/2",)),
    ]


def test_slots_are_those_of_the_timezone() -> None:
    evening, morning = at(0.9), at(1.1)  # 21:36 and 02:24 UTC: one day in New York, two in Oslo
    only_days = Policy(5, 0, 0, 0)
    assert len(kept([evening, morning], replace(only_days, timezone=ZoneInfo("Europe/Oslo")))) == 2
    there = replace(only_days, timezone=ZoneInfo("America/New_York"))
    assert kept([evening, morning], there) == {morning.id}


def test_a_day_of_23_or_25_hours_is_one_slot() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    policy = Policy(9, 0, 0, 0, berlin)
    for year, month, day, hours in ((2026, 3, 29, 23), (2026, 10, 25, 25)):
        midnight = datetime(year, month, day, tzinfo=berlin).astimezone(UTC)
        days = (midnight - BEGIN) / timedelta(days=1)
        hourly = [at(days + hour / 24) for hour in range(hours)]
        assert kept(hourly, policy) == {hourly[-1].id}
        following = at(days + hours / 24)
        assert kept([*hourly, following], policy) == {hourly[-1].id, following.id}


def test_a_database_backup_does_not_stand_in_for_a_full_one() -> None:
    full = at(0.1)
    partial = [at(0.2 + n / 100, *GOOD[:2], kind="database") for n in range(5)]
    config = at(0.5, GOOD[2], kind="config")
    policy = Policy(1, 0, 0, 0, UTC)
    assert reasons([full, partial[-1], config, partial[0]], policy) == [
        (f"latest of {EVERYTHING}", f"latest proven of {EVERYTHING}", f"daily 1/1 of {EVERYTHING}"),
        ("latest", "latest proven", "daily 1/1"),
        ("latest", "latest proven", "daily 1/1"),
        (),
    ]
    assert kept([full, *partial, config], policy) == ids([full, partial[-1], config])


def test_a_full_backup_in_which_a_source_failed_stands_behind_a_whole_one() -> None:
    whole = at(0.1)
    lacking = at(0.2, *GOOD[:2], Copy(SOURCES[2], "failed"))
    assert reasons([whole, lacking], Policy(1, 0, 0, 0, UTC)) == [
        (
            "latest of config/project",
            f"latest proven of config/project, {EVERYTHING}",
            f"daily 1/1 of config/project, {EVERYTHING}",
        ),
        (
            "latest",
            "latest proven of databases/notes, databases/tasks",
            "daily 1/1 of databases/notes, databases/tasks",
        ),
    ]


def test_a_proven_backup_comes_before_a_newer_one_that_is_not() -> None:
    proven, not_proven = at(0.1, Copy("a", proven=True)), at(0.2, Copy("a"))
    newest = at(1, Copy("a", proven=True))
    history = [proven, not_proven, newest]
    assert kept(history, Policy(2, 0, 0, 0, UTC)) == ids([proven, newest])


def test_a_proven_backup_stays_at_any_age_while_none_follows() -> None:
    proven = at(0)
    later = [at(400 + day, *(Copy(source) for source in SOURCES)) for day in range(50)]
    policy = Policy(9, 0, 0, timezone=UTC)
    assert proven.id in kept([proven, *later], policy)
    assert proven.id not in kept([proven, *later, at(460)], policy)


def test_a_source_that_is_no_longer_configured_keeps_its_last_backups() -> None:
    old = [at(day, Copy("gone", proven=True), kind="database") for day in range(3)]
    new = [at(1000 + day) for day in range(300)]
    assert ids(old) <= kept([*old, *new], Policy(timezone=UTC))


def test_a_suspect_backup_stays_with_the_good_one_before_it() -> None:
    days = [at(day, Copy("a", proven=True)) for day in range(6)]
    suspect = at(2.5, Copy("a", proven=True, suspect=True))
    policy = Policy(2, 0, 0, 0, UTC)
    assert reasons([days[1], days[2], suspect, days[3]], policy) == [
        (),
        ("daily 2/2", "good before a suspect one"),
        ("suspect, daily 1/2",),
        ("latest", "latest proven", "daily 1/2"),
    ]
    assert kept([*days, suspect], policy) == ids([days[2], suspect, *days[4:]])


def test_the_newest_good_one_stays_while_all_that_follow_are_suspect() -> None:
    good = at(0, Copy("a", proven=True))
    suspect = [at(day, Copy("a", proven=True, suspect=True)) for day in range(1, 400)]
    stay = kept([good, *suspect], Policy(timezone=UTC))
    assert good.id in stay
    assert suspect[-1].id in stay


def test_a_minimum_spreads_over_days_before_it_takes_more_of_one() -> None:
    days = [at(day / 4) for day in range(12)]  # four backups on each of three days
    policy = Policy(1, 0, 0, 3, UTC)
    assert kept(days, policy) == ids([days[3], days[7], days[11]])
    assert kept(days[:4], policy) == ids([days[0], days[1], days[3]])
    assert kept(days, replace(policy, minimum=0)) == {days[11].id}


def test_all_zeros_keep_everything_and_say_so() -> None:
    history = [at(day) for day in range(500)]
    for verdict in judge(history, Policy(0, 0, 0, 0), LATER):
        assert verdict.reasons == ("all tiers are 0, which keeps everything",)


def test_what_cannot_be_judged_says_why_it_stays() -> None:
    policy = Policy(1, 0, 0, 0, UTC)
    plain = at(5)
    others = [
        at(1, ours=False, readable=False),
        at(2, readable=False),
        at(3, *(Copy(source, "failed") for source in SOURCES)),
        at(9999),
    ]
    assert reasons([plain, *others], policy)[1:] == [
        ("made by another program",),
        ("its manifest cannot be read",),
        ("nothing tells what it holds",),
        ("from the future",),
    ]


def test_sources_of_two_hosts_are_not_each_others_backups() -> None:
    here, there = (at(day)._replace(host=host) for day, host in ((1, "here"), (1.1, "there")))
    assert kept([here, there], Policy(1, 0, 0, 0, UTC)) == {here.id, there.id}


@pytest.mark.parametrize("jump", [-3650, -40, -2, 2, 40, 3650])
def test_a_backup_made_while_the_clock_was_wrong_costs_no_more_than_its_slot(jump: int) -> None:
    """What is stamped with a wrong time fills one slot, or, from the future, none."""
    days = [at(day) for day in range(300)]
    now = BEGIN + timedelta(days=300)
    right = kept(days, Policy(timezone=UTC), now)
    wrong = at(300 + jump)
    lost = right - kept([*days, wrong], Policy(timezone=UTC), now)
    assert len(lost) <= (0 if jump > 0 else 1)
    if jump > 0:
        assert wrong.id in kept([*days, wrong], Policy(timezone=UTC), now)
