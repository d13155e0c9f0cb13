"""Retention: which backups stay and why; a pure function from snapshots to verdicts.

Every source is judged by itself, and a snapshot stays if any source wants it. Of one source's
copies stay:

    latest          the newest; the newest that is not suspect; the newest proven one; at any age
    daily, weekly,  the best copy of each of the newest so many days, ISO weeks and months that
    monthly         have one: a proven copy before one that is not, then the newer
    suspect, ...    the same for suspect copies, counted apart: they push no good one out
    minimum         where those are fewer than the floor, more of them, spread over days
    good before     the newest good copy before each suspect one that stays

and every snapshot stays that is not ours, cannot be read, or is from the future. Slots are filled
by what is there, not by age: a gap, or a clock that ran ahead, costs nothing. What is from the
future fills no slot, so a wrong clock keeps more, never less. Judging what was kept keeps it all.

Nothing here knows repository, clock or settings.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, tzinfo
from itertools import chain, islice
from typing import Literal, NamedTuple

from msgspec import Struct

EVERYTHING = "everything"  # what a full backup holds as a whole: no partial one stands in for it
_WHOLE = frozenset(("full", "incremental"))
_ORDER = ("latest", "daily", "weekly", "monthly", "suspect,", "minimum", "good")  # of reasons


class Copy(NamedTuple):
    """What became of one source in one snapshot; "failed" means that it holds none of it.

    `proven`: read back and examined, without findings. `suspect`: it looks damaged or shrunken.
    """

    source: str
    outcome: Literal["stored", "unchanged", "failed"] = "stored"
    proven: bool = False
    suspect: bool = False


class Candidate(NamedTuple):
    """One snapshot to judge. `readable` is False where its manifest tells nothing.

    Sources of the same name on another `host` are other sources.
    """

    id: str
    time: datetime
    backup_type: str
    copies: tuple[Copy, ...]
    host: str = ""
    ours: bool = True
    readable: bool = True


class Policy(Struct, frozen=True):
    """How many slots of each tier keep a backup, by the calendar of `timezone`.

    `minimum` is how many copies of a source stay at least, if there are so many. A `timezone` of
    None is this machine's own. All tiers at 0 keep everything.
    """

    daily: int = 30
    weekly: int = 12
    monthly: int = 6
    minimum: int = 3
    timezone: tzinfo | None = None

    @property
    def keeps_everything(self) -> bool:
        """Whether there is nothing that this would ever drop."""
        return not (self.daily or self.weekly or self.monthly)


class Verdict(NamedTuple):
    """One snapshot's fate. `reasons` is empty exactly when it may be forgotten.

    A reason that only some of the snapshot's sources have ends with their names.
    """

    id: str
    time: datetime
    reasons: tuple[str, ...]  # ("latest", "daily 1/30", "monthly 1/6 of databases/notes")


def judge(candidates: Iterable[Candidate], policy: Policy, now: datetime) -> tuple[Verdict, ...]:
    """Return a verdict on each snapshot, newest first. All times are aware."""
    ordered = sorted(candidates, key=lambda each: (each.time, each.id), reverse=True)
    exempt: dict[str, tuple[str, ...]] = {}
    shelves: defaultdict[tuple[str, str], list[_Item]] = defaultdict(list)
    for each in ordered:
        held = tuple(_held(each))
        if reason := _exemption(each, held, policy, now):
            exempt[each.id] = (reason,)
            continue
        for item in _items(each, held, policy.timezone):
            shelves[each.host, item.source].append(item)
    wanted: defaultdict[str, defaultdict[str, list[str]]]
    wanted = defaultdict(lambda: defaultdict(list))
    for shelf in shelves.values():
        for item, reason in _wanted(shelf, policy):
            wanted[item.id][reason].append(item.source)
    worded = {each.id: _worded(each, wanted[each.id]) for each in ordered if each.id in wanted}
    reasons = worded | exempt
    return tuple(Verdict(each.id, each.time, reasons.get(each.id, ())) for each in ordered)


class _Item(NamedTuple):
    """One source's copy in one snapshot, with the slots it can fill."""

    id: str
    source: str
    proven: bool
    suspect: bool
    daily: date
    weekly: tuple[int, int]
    monthly: tuple[int, int]


def _exemption(candidate: Candidate, held: Sequence[Copy], policy: Policy, now: datetime) -> str:
    """Say why a snapshot stays whatever its sources want, if it does."""
    if not candidate.ours:
        return "made by another program"
    if not candidate.readable:
        return "its manifest cannot be read"
    if candidate.time > now:
        return "from the future"
    if not held:
        return "nothing tells what it holds"
    return "all tiers are 0, which keeps everything" if policy.keeps_everything else ""


def _held(candidate: Candidate) -> Iterator[Copy]:
    """Yield the copies a snapshot holds, and what it is as a whole."""
    held = [copy for copy in candidate.copies if copy.outcome != "failed"]
    yield from held
    if held and candidate.backup_type in _WHOLE:
        yield Copy(
            EVERYTHING,
            proven=len(held) == len(candidate.copies) and all(copy.proven for copy in held),
            suspect=any(copy.suspect for copy in held),
        )


def _items(candidate: Candidate, held: Sequence[Copy], timezone: tzinfo | None) -> Iterator[_Item]:
    local = candidate.time.astimezone(timezone)
    daily, monthly = local.date(), (local.year, local.month)
    weekly = local.isocalendar()[:2]
    for copy in held:
        good = copy.proven and not copy.suspect
        yield _Item(candidate.id, copy.source, good, copy.suspect, daily, weekly, monthly)


def _wanted(shelf: Sequence[_Item], policy: Policy) -> Iterator[tuple[_Item, str]]:
    """Yield the copies of one source that stay, each once per reason. `shelf` is newest first."""
    good = [item for item in shelf if not item.suspect]
    suspect = [item for item in shelf if item.suspect]
    reasons = [
        *_latest(shelf, good),
        *_tiers(good, policy, "{tier} {number}/{count}"),
        *_tiers(suspect, policy, "suspect, {tier} {number}/{count}"),
    ]
    kept = {item.id for item, _ in reasons}
    for items in (good, suspect):  # each by itself, or a flood of one would push the others out
        missing = policy.minimum - sum(item.id in kept for item in items)
        reasons += [
            (item, f"minimum of {policy.minimum}") for item in _spread(items, kept, missing)
        ]
    kept = {item.id for item, _ in reasons}
    yield from reasons
    yield from _good_before(shelf, kept)


def _latest(shelf: Sequence[_Item], good: Sequence[_Item]) -> Iterator[tuple[_Item, str]]:
    yield shelf[0], "latest"
    if good and good[0] is not shelf[0]:
        yield good[0], "latest good"
    for item in islice((item for item in good if item.proven), 1):
        yield item, "latest proven"


def _tiers(items: Sequence[_Item], policy: Policy, words: str) -> Iterator[tuple[_Item, str]]:
    tiers = (
        ("daily", policy.daily, _best((item.daily, item) for item in items)),
        ("weekly", policy.weekly, _best((item.weekly, item) for item in items)),
        ("monthly", policy.monthly, _best((item.monthly, item) for item in items)),
    )
    for tier, count, best in tiers:
        for number, item in enumerate(best[:count], 1):
            yield item, words.format(tier=tier, number=number, count=count)


def _best(filed: Iterable[tuple[date | tuple[int, int], _Item]]) -> list[_Item]:
    """Return the copy that fills each slot, newest slot first: a proven one, else the newest."""
    best: dict[date | tuple[int, int], _Item] = {}
    for slot, item in filed:
        if slot not in best or (item.proven and not best[slot].proven):
            best[slot] = item
    return list(best.values())


def _spread(items: Sequence[_Item], kept: set[str], count: int) -> list[_Item]:
    """Choose `count` more: from other days before others of the same, and then the oldest.

    So a hundred backups in an hour take the place of one, not of a hundred.
    """
    if count <= 0:
        return []
    days = {item.daily for item in items if item.id in kept}
    first = [item for item in _best((item.daily, item) for item in items) if item.daily not in days]
    taken = kept | {item.id for item in first}
    rest = [item for item in reversed(items) if item.id not in taken]
    return list(islice(chain(first, rest), count))


def _good_before(shelf: Sequence[_Item], kept: set[str]) -> Iterator[tuple[_Item, str]]:
    """Yield the newest good copy before each suspect one that stays: what it shrank from."""
    wanted = False
    for item in shelf:
        if item.suspect:
            wanted = wanted or item.id in kept
        elif wanted:
            yield item, "good before a suspect one"
            wanted = False


def _worded(candidate: Candidate, wanted: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Name the sources behind a reason, unless all that the snapshot holds share it."""
    every = {copy.source for copy in _held(candidate)}
    return tuple(
        reason
        if set(wanted[reason]) == every
        else f"{reason} of {', '.join(sorted(wanted[reason]))}"
        for reason in sorted(wanted, key=lambda each: (_ORDER.index(each.split()[0]), each))
    )
