"""Prune: delete what no snapshot refers to. Plan first; `repack` carries the plan out.

    survey      what all snapshots refer to, whoever made them, against the index and the store;
                a needed blob that is in no index, or a needed pack that is missing or of another
                size than the index says, stops it here
    plan        what becomes of each pack, and why, by restic's rules:
                  delete   in no index; nothing in it is needed; each of its blobs lies elsewhere
                  repack   partly needed: trees always, data until what stays unneeded is at most
                           MAX_UNUSED of all; blobs of both kinds in one pack; uncompressed trees;
                           ten or more small packs of one kind, into few
                  keep     all others

Of a blob that lies in several packs one copy counts as needed, in the pack that has least else to
lose. Planning is pure and holds some bits for each blob and one small object for each pack.

Source: restic design, "Pruning"; restic internal/repository/prune.go.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from anyio import from_thread, to_thread
from msgspec import Struct

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import PackId, SnapshotId
from mcp_backup.format.pack import PackEntry, header_size
from mcp_backup.progress import Listener, nobody
from mcp_backup.repository.blob_index import BlobIndex
from mcp_backup.repository.objects import identity_in, pack_name
from mcp_backup.repository.reachable import Marks, reachable
from mcp_backup.repository.repository import Repository
from mcp_backup.verbs import PrunedPacks, PruneReport

MAX_UNUSED = 0.05  # of what stays: rewriting a pack for less costs more than it frees
SMALL_PACK = (4 << 20) * 4 // 5  # bytes; four fifths of the smallest pack that restic aims for
MANY_SMALL_PACKS = 10  # of one kind: fewer are left, or each prune would rewrite the last remainder


class Fate(StrEnum):
    """What becomes of a pack."""

    KEEP = "keep"
    REPACK = "repack"  # what is needed of it is copied, then it is deleted
    DELETE = "delete"


class PackPlan(Struct, frozen=True):
    """One pack's fate and the reason. `size` is bytes in the store, `used` those that are needed.

    `indexed` is False for a pack that no index lists.
    """

    pack: PackId
    fate: Fate
    reason: str
    size: int
    used: int
    indexed: bool = True


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune would do, and the index and marks it was made from."""

    packs: tuple[PackPlan, ...]
    snapshots: int
    index: BlobIndex = field(repr=False, compare=False)
    used: Marks = field(repr=False, compare=False)

    def of(self, *fates: Fate) -> list[PackPlan]:
        """Return the packs of these fates."""
        return [plan for plan in self.packs if plan.fate in fates]

    @property
    def rewrites_index(self) -> bool:
        """Whether packs go that an index lists."""
        return any(plan.indexed for plan in self.of(Fate.REPACK, Fate.DELETE))

    def report(self, *, freed: int | None = None, duration_seconds: float = 0) -> PruneReport:
        """Word the plan as a report: of a prune that freed so many bytes, or of a dry run."""
        groups: dict[tuple[Fate, str], list[PackPlan]] = {}
        for plan in self.packs:
            groups.setdefault((plan.fate, plan.reason), []).append(plan)
        gone, kept = self.of(Fate.REPACK, Fate.DELETE), self.of(Fate.KEEP)
        return PruneReport(
            dry_run=freed is None,
            snapshots=self.snapshots,
            packs=tuple(
                PrunedPacks(fate.value, reason, len(plans), sum(plan.size for plan in plans))
                for (fate, reason), plans in groups.items()
            ),
            freed_bytes=sum(p.size - p.used for p in gone) if freed is None else freed,
            unused_bytes=sum(plan.size - plan.used for plan in kept),
            duration_seconds=round(duration_seconds, 3),
        )


async def survey(
    repository: Repository,
    listener: Listener = nobody,
    *,
    without: frozenset[SnapshotId] = frozenset(),
) -> PrunePlan:
    """Plan a prune, as if the snapshots `without` were gone. Changes nothing.

    The caller holds a lock; an exclusive one if the plan is to be carried out.

    Raises:
        IntegrityError, ObjectMissing: something that a snapshot needs is damaged or missing, or
            a snapshot or index file is unreadable.
    """
    snapshots = await repository.snapshots()
    roots = {id_: each.tree for id_, each in snapshots.items() if id_ not in without}
    index = await repository.load_index(refresh=True)
    used = await reachable(repository, index, roots, listener)
    sizes = await repository.store.objects("data/")
    return await to_thread.run_sync(
        lambda: plan_prune(index, used, sizes, len(roots), pause=from_thread.check_cancelled)
    )


def plan_prune(
    index: BlobIndex,
    used: Marks,
    sizes: Mapping[str, int],
    snapshots: int = 0,
    *,
    pause: Callable[[], None] = lambda: None,
) -> PrunePlan:
    """Decide what becomes of each pack. `sizes` are the packs in the store, `used` is marked whole.

    `pause` is called between packs: a million blobs take some seconds.

    Raises:
        IntegrityError: a needed pack is missing, or of another size than the index says.
    """
    tallies = _tallied(index, used, pause)
    plans = [_unindexed(name, size) for name, size in sizes.items() if not _listed(index, name)]
    for tally in tallies:
        there = sizes.get(pack_name(tally.pack))
        tally.size = there or 0
        if tally.needed:
            _refuse_damaged(tally, there)
        else:
            reason = "missing, and nothing needs it" if there is None else "nothing needs it"
            plans.append(PackPlan(tally.pack, Fate.DELETE, reason, tally.size, 0))
    plans += _decided([tally for tally in tallies if tally.needed])
    return PrunePlan(tuple(plans), snapshots, index, used)


class _Tally(Struct):
    """What is in one pack. `used` and `unused` are bytes; the header counts as used."""

    pack: PackId
    used: int
    unused: int = 0
    needed: int = 0  # blobs
    kinds: set[BlobKind] = msgspec.field(default_factory=set)
    plain_tree: bool = False
    size: int = 0  # in the store

    @property
    def unused_share(self) -> float:
        return self.unused / (self.used + self.unused)

    def count(self, entry: PackEntry, *, used: bool) -> None:
        if used:
            self.used += entry.length
            self.needed += 1
        else:
            self.unused += entry.length

    def discount(self, entry: PackEntry) -> None:
        """Count a blob as not needed after all: another pack has it."""
        self.used -= entry.length
        self.unused += entry.length
        self.needed -= 1


def _listed(index: BlobIndex, name: str) -> bool:
    return index.has_pack(PackId(identity_in(name)))


def _unindexed(name: str, size: int) -> PackPlan:
    reason = "in no index"
    return PackPlan(PackId(identity_in(name)), Fate.DELETE, reason, size, 0, indexed=False)


def _tallied(index: BlobIndex, used: Marks, pause: Callable[[], None]) -> list[_Tally]:
    """Count what is in each pack, each needed blob in one pack only."""
    met, several = Marks(len(index)), Marks(len(index))
    tallies = []
    for pack in index.packs():
        pause()
        tally = _Tally(pack, header_size(index.entries(pack)))
        for entry, number in numbered(index, pack):
            if not met.mark(number):
                several.mark(number)
            tally.count(entry, used=number in used)
            tally.kinds.add(entry.kind)
            tally.plain_tree |= entry.kind is BlobKind.TREE and not entry.plain_length
        tallies.append(tally)
    if len(several):
        _reduce(index, used, several, tallies)
    return tallies


def _reduce(index: BlobIndex, used: Marks, several: Marks, tallies: list[_Tally]) -> None:
    """Let one pack have each blob that lies in several: the one that has least else to lose."""
    taken = Marks(len(index))
    for tally in sorted(tallies, key=lambda each: (each.unused_share, -each.used, each.pack)):
        for entry, number in numbered(index, tally.pack):
            if number in several and number in used and not taken.mark(number):
                tally.discount(entry)


def numbered(index: BlobIndex, pack: PackId) -> Iterator[tuple[PackEntry, int]]:
    """Yield the entries of a pack by offset, each with its blob's position in the index."""
    for entry in index.entries(pack):
        number = index.position(entry.kind, entry.id)
        assert number is not None
        yield entry, number


def _refuse_damaged(tally: _Tally, there: int | None) -> None:
    wanted = tally.used + tally.unused
    if there != wanted:
        got = "missing" if there is None else f"{there} bytes"
        raise IntegrityError(
            f"{pack_name(tally.pack)}: {got}, wanted {wanted} bytes, and snapshots need "
            f"{tally.needed} of its blobs",
            hint="Run `mcp-backup check` to see what is affected. Nothing was deleted.",
        )


def _decided(tallies: list[_Tally]) -> list[PackPlan]:
    """Return the plan for each pack that has something needed in it."""
    allowed = sum(tally.used for tally in tallies) * MAX_UNUSED / (1 - MAX_UNUSED)
    unused = sum(tally.unused for tally in tallies)
    reasons: dict[PackId, str] = {}
    for tally in sorted(tallies, key=_urgency, reverse=True):
        must = _must_repack(tally)
        if must or (tally.unused and (_is_small(tally) or unused > allowed)):
            reasons[tally.pack] = must or "partly needed"
            unused -= tally.unused
    for kind in BlobKind:
        remainder = any(kind in tally.kinds for tally in tallies if tally.pack in reasons)
        small = [t for t in tallies if _is_small(t) and not t.unused and t.kinds == {kind}]
        if len(small) + remainder >= MANY_SMALL_PACKS:
            reasons |= {tally.pack: "small" for tally in small if tally.pack not in reasons}
    return [_plan(tally, reasons.get(tally.pack, "")) for tally in tallies]


def _urgency(tally: _Tally) -> tuple[bool, bool, float]:
    return bool(_must_repack(tally)), _is_small(tally), tally.unused_share


def _must_repack(tally: _Tally) -> str:
    if len(tally.kinds) > 1:
        return "trees and data in one pack"
    if tally.plain_tree:
        return "uncompressed trees"
    if tally.unused and BlobKind.TREE in tally.kinds:
        return "partly needed trees"
    return ""


def _is_small(tally: _Tally) -> bool:
    return tally.size < SMALL_PACK


def _plan(tally: _Tally, reason: str) -> PackPlan:
    if reason:
        return PackPlan(tally.pack, Fate.REPACK, reason, tally.size, tally.used)
    kept = "mostly needed" if tally.unused else "needed"
    return PackPlan(tally.pack, Fate.KEEP, kept, tally.size, tally.used)
