"""Databases that are plainly one: many DuckDB files in a directory, as one source.

A directory with three DuckDB files in it, or with three directories that each have some, is one
database in shards. What a server names by itself stays by itself.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_FEW = 3  # fewer may be two databases of one program


def shard_roots(paths: Iterable[Path], top: Path) -> list[Path]:
    """Return the directories strictly below `top` whose DuckDB files are one source each."""
    known = list(paths)
    direct = Counter(path.parent for path in known)
    wide = {directory for directory, files in direct.items() if files >= _FEW}
    branches = Counter(directory.parent for directory in direct)
    wide |= {directory for directory, below in branches.items() if below >= _FEW}
    roots = [directory for directory in wide if directory != top and top in directory.parents]
    return sorted(root for root in roots if not any(other in root.parents for other in roots))
