"""At which size a database's image is cut: stable, until what changes in it asks for another."""

from collections.abc import Sequence

from mcp_backup.backup.trees import Directory
from mcp_backup.churn import KEPT, Changed, Cut, changed, judged
from mcp_backup.format.tree import Node
from mcp_backup.manifest import SourceRecord

_TUNED = "sqlite"  # other images are cut where their own blocks begin


def cut_of(record: SourceRecord) -> Cut:
    """Return how the image of a source was cut, and whether another size is worth its price."""
    evidence, page_size = record.evidence, 0
    if record.kind != _TUNED or evidence is None:
        return Cut(record.chunk_size, record.chunk_size)
    if isinstance(told := evidence.facts.get("page_size"), int):
        page_size = told
    size = sum(file.size for file in evidence.files)
    return judged(size, page_size, record.chunk_size, record.churn)


def told(cut: Cut) -> str:
    """Say that the size changes, what that saves and what it costs; "" where it does not."""
    if not cut.pays:
        return ""
    return (
        f"cut into chunks of {cut.best >> 10} KiB from now on, of {cut.size >> 10} KiB before: "
        f"saves about {_rounded(cut.saves)} at each backup, and stores the file anew this once, "
        f"about {_rounded(cut.costs)}"
    )


def described(cut: Cut) -> str:
    """Describe how an image is cut, and what was considered; "" where there is no image."""
    if not cut.size:
        return ""
    is_now = f"chunks of {cut.size >> 10} KiB"
    if cut.best == cut.size:
        return is_now
    price = f"{_rounded(cut.saves)} less at each backup, {_rounded(cut.costs)} once"
    if cut.pays:
        return f"{is_now}, of {cut.best >> 10} KiB from the next backup on: {price}"
    return f"{is_now}; {cut.best >> 10} KiB would not pay: {price}"


def _rounded(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"


def observed(
    last: SourceRecord, before: Sequence[Node], root: Directory, chunk_size: int
) -> tuple[Changed, ...]:
    """Return what was seen to change, newest last: before, and in this backup.

    Nothing, where it was cut another way before. A backup in which nothing changed tells nothing:
    it stores no list of chunks either.
    """
    if last.chunk_size != chunk_size or last.kind != _TUNED:
        return ()
    seen = list(last.churn)
    for was in before:
        now = root.children.get(was.name)
        if isinstance(now, Node) and now.content != was.content:
            seen.append(changed(was.content or (), now.content or ()))
    return tuple(seen[-KEPT:])
