"""Churn: how much of a database's image changes between two backups, and how finely to cut it.

A changed row costs the chunk that it lies in, every time; a chunk costs 35 bytes in the list of
chunks that each changed backup stores anew. So there is a best size for each database: where few
scattered pages of many change it is small, where much changes together it is large. How many
chunks changed is counted at each backup, at the size in use and at two and four times that, which
also tells how the changes lie together, and so what finer cuts would count.

Another size stores the whole file once more. It is chosen only where that has paid back after
PAYS_WITHIN backups that change something; then counting begins again, so sizes do not swing.

Measured in DESIGN.md, "Chunks": over ten days of edits of a 1 GB database 8 and 16 KiB cost the
least, in hot spots and scattered.
"""

import math
from collections.abc import Sequence
from itertools import compress, count
from operator import ne
from typing import NamedTuple

from msgspec import Struct

FINEST, COARSEST = 4 << 10, 64 << 10  # bytes
MOST_CHUNKS = 1 << 18  # whatever is saved: the list of that many is 9 MB
PAYS_WITHIN = 30  # backups
KEPT = 7  # observations
_ENOUGH = 3  # observations, before anything is concluded from them
_LISTED = 35  # bytes of a chunk in the list of the file's chunks
_BLOB = 115  # bytes that a new blob costs beside its content
_COMPRESSED = 0.5  # of a chunk's bytes is stored; text is a third, floats two thirds


class Changed(NamedTuple):
    """Chunks of one image that differ from the backup before: as cut, and were they larger."""

    chunks: int
    twice: int
    fourfold: int


class Cut(Struct, frozen=True):
    """How an image is cut, and what else was considered; all in bytes.

    `best` is the size that costs the least, `saves` what it saves at each backup that changes
    something, and `costs` what it takes to store the file anew.
    """

    size: int
    best: int
    saves: int = 0
    costs: int = 0

    @property
    def next(self) -> int:
        """The size for the next backup."""
        return self.best if self.pays else self.size

    @property
    def pays(self) -> bool:
        """Whether the best size is another one, and worth its price."""
        return self.saves * PAYS_WITHIN > self.costs


def changed(before: Sequence[bytes], now: Sequence[bytes]) -> Changed:
    """Count what differs in the list of a file's chunks, cut alike both times."""
    differ = list(compress(count(), map(ne, before, now)))
    differ += range(len(before), len(now))
    return Changed(*(len({n // group for n in differ}) for group in (1, 2, 4)))


def judged(bytes_: int, page_size: int, chunk_size: int, seen: Sequence[Changed]) -> Cut:
    """Weigh the sizes that an image of so many bytes could be cut at.

    `seen` are the last observations at `chunk_size`. With fewer than three, all stays as it is.
    """
    if len(seen) < _ENOUGH or not chunk_size or not bytes_:
        return Cut(chunk_size, chunk_size)
    costs = {
        size: _cost(bytes_, size, _expected(chunk_size, size, seen))
        for size in _sizes(bytes_, page_size) | {chunk_size}
    }
    best = min(costs, key=lambda size: (costs[size], size != chunk_size))
    saves = costs[chunk_size] - costs[best]
    return Cut(chunk_size, best, round(saves), round(bytes_ * _COMPRESSED) if saves else 0)


def _sizes(bytes_: int, page_size: int) -> set[int]:
    least = max(FINEST, page_size, bytes_ // MOST_CHUNKS)
    return {FINEST << power for power in range(5) if least <= FINEST << power <= COARSEST}


def _cost(bytes_: int, size: int, chunks: float) -> float:
    """Return what a backup stores, once so many chunks of a size have changed."""
    return chunks * (size * _COMPRESSED + _BLOB) + bytes_ / size * _LISTED


def _expected(chunk_size: int, size: int, seen: Sequence[Changed]) -> float:
    """Return how many chunks of another size would have changed, on average."""
    chunks, twice, fourfold = (
        sum(column) / len(seen)
        for column in (
            [each.chunks for each in seen],
            [each.twice for each in seen],
            [each.fourfold for each in seen],
        )
    )
    known = {chunk_size: chunks, 2 * chunk_size: twice, 4 * chunk_size: fourfold}
    if size in known:
        return known[size]
    growth = math.sqrt(chunks / fourfold) if fourfold else 1.0  # for each halving of the size
    if size < chunk_size:
        return chunks * math.pow(growth, math.log2(chunk_size / size))
    return fourfold / math.pow(growth, math.log2(size / (4 * chunk_size)))
