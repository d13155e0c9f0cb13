"""The walk: which files, directories and links under a root the patterns mean, and in what order.

Parents come before children, names in the order of their raw bytes. Links are found, never
followed. A directory comes with the first thing found in it, or by itself where a pattern means
everything beneath. Sockets, pipes and devices are passed over and said.
"""

import os
import stat
from typing import Literal

from msgspec import Struct, field

from mcp_backup.sources import beneath
from mcp_backup.sources.globs import Globs, Positions

_SPECIAL = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Found(Struct, frozen=True):
    """One thing under the root, as the walk saw it. `path` is relative to the root."""

    path: str
    type: Literal["file", "dir", "symlink"]
    status: os.stat_result
    link_target: str = ""


class Walked(Struct):
    """A walk's result.

    `specials` maps what was passed over to what it is; `matched` are the indices of the include
    patterns that met something; `links` are the links that kept a pattern from going further.
    """

    found: list[Found] = field(default_factory=list)
    specials: dict[str, str] = field(default_factory=dict)
    matched: set[int] = field(default_factory=set)
    links: dict[int, str] = field(default_factory=dict)


class _Level(Struct):
    """A directory being walked. `pending` is told with the first thing found beneath it."""

    parts: tuple[str, ...]
    include: Positions
    exclude: Positions
    listing: list[Found]  # last first
    pending: Found | None = None


def walk(root: int, include: Globs, exclude: Globs) -> Walked:
    """Find what `include` means and `exclude` does not, under the open directory `root`.

    Raises:
        PermissionError: a directory in which something may match cannot be listed; `filename`
            is its relative path.
    """
    walked = Walked()
    levels = [_Level((), include.start, exclude.start, _listing(root, (), walked))]
    while levels:
        if not levels[-1].listing:
            levels.pop()
            continue
        found = levels[-1].listing.pop()
        inner = _judge(found, levels, include, exclude, walked)
        if inner is not None:
            inner.listing = _listing(root, inner.parts, walked)
            levels.append(inner)
    walked.specials = {
        path: what for path, what in walked.specials.items() if _means(path, include, exclude)
    }
    return walked


def _judge(
    found: Found, levels: list[_Level], include: Globs, exclude: Globs, walked: Walked
) -> _Level | None:
    """Tell `found` if it is meant; return the next level if something may match beneath it."""
    level, name = levels[-1], found.path.rpartition("/")[2]
    directory = found.type == "dir"
    match = include.match(level.include, name, directory=directory)
    dropped, excluded = exclude.excludes(level.exclude, name, directory=directory)
    if dropped:
        return None
    walked.matched |= match.selected
    if match.selected:
        for outer in levels:
            if outer.pending is not None:
                walked.found.append(outer.pending)
                outer.pending = None
        walked.found.append(found)
    if found.type == "symlink":
        for index, _ in include.match(level.include, name, directory=True).beneath:
            walked.links.setdefault(index, found.path)
    if not match.beneath:
        return None
    parts = (*level.parts, name)
    return _Level(parts, match.beneath, excluded, [], None if match.selected else found)


def _listing(root: int, parts: tuple[str, ...], walked: Walked) -> list[Found]:
    """Look at every name in a directory; last first. One that has gone meanwhile is empty."""
    listing: list[Found] = []
    try:
        with beneath.directory(root, parts) as descriptor:
            for name in sorted(os.listdir(descriptor), key=os.fsencode, reverse=True):
                if not beneath.TEMPORARY.fullmatch(name):
                    _look(descriptor, "/".join((*parts, name)), listing, walked)
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, "/".join(parts) or ".") from error
    except OSError as error:
        if error.errno not in beneath.GONE:
            raise
    return listing


def _look(parent: int, path: str, listing: list[Found], walked: Walked) -> None:
    name = path.rpartition("/")[2]
    status = beneath.status(parent, name)
    if status is None:
        return
    if stat.S_ISREG(status.st_mode):
        listing.append(Found(path, "file", status))
    elif stat.S_ISDIR(status.st_mode):
        listing.append(Found(path, "dir", status))
    elif stat.S_ISLNK(status.st_mode):
        listing.append(Found(path, "symlink", status, os.readlink(name, dir_fd=parent)))
    else:
        walked.specials[path] = _SPECIAL.get(stat.S_IFMT(status.st_mode), "not a file")


def _means(path: str, include: Globs, exclude: Globs) -> bool:
    """Say whether the patterns mean this path of something that is not a directory."""
    reached, dropped = include.start, exclude.start
    *outer, name = path.split("/")
    for part in outer:
        reached = include.match(reached, part, directory=True).beneath
        hit, dropped = exclude.excludes(dropped, part, directory=True)
        if hit:
            return False
    hit, _ = exclude.excludes(dropped, name, directory=False)
    return not hit and bool(include.match(reached, name, directory=False).selected)
