"""Signatures: short texts by which a live source is recognised as old, new, or neither.

A signature maps paths within a source to what lies there. A database has one entry, for "": the
digest of its content, "absent" or "damaged". A file set has one for each path that a restore
would write: its type, permissions and content; workflows have one for each document, DuckDB
sources one for each of their databases. A database of a server has one, too, for "": which
database of that server it is, whatever it is called.
"""

import os
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Literal

from anyio import to_thread

from mcp_backup.errors import SourceMissing, SourceUnreadable
from mcp_backup.restore.journal import Signature
from mcp_backup.sources import beneath, capture
from mcp_backup.sources.digest import of_file
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.source import MARKED, PIECEWISE, SERVED, SourceSpec

ABSENT = "absent"
DAMAGED = "damaged"
_DIRECTORY = "dir:"
DATABASE = ""  # the one path of a database

Resemblance = Literal["old", "new", "mixed", "other"]


def compare(live: Signature, old: Signature, new: Signature) -> Resemblance:
    """Tell what `live` is: all old, all new, in every path one of the two, or something else.

    What is old and new at once counts as old. A directory where there should be nothing agrees:
    it stays when others have put files into it.
    """
    paths = old.keys() | new.keys()
    if all(_agree(live.get(path), old.get(path)) for path in paths):
        return "old"
    if all(_agree(live.get(path), new.get(path)) for path in paths):
        return "new"
    known = (
        _agree(live.get(path), old.get(path)) or _agree(live.get(path), new.get(path))
        for path in paths
    )
    return "mixed" if all(known) else "other"


def _agree(found: str | None, wanted: str | None) -> bool:
    if wanted == ABSENT and found is not None and found.startswith(_DIRECTORY):
        return True
    return found == wanted


def differing(one: Signature, other: Signature) -> list[str]:
    """Return the paths at which two signatures disagree, sorted."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


async def of_live(spec: SourceSpec, paths: Iterable[str]) -> Signature:
    """Return the signature of what is live; `paths` matter for file sets only.

    Raises:
        SourceBusy: a database cannot be read for now.
    """
    if spec.kind == "files":
        return await to_thread.run_sync(of_files, Path(spec.path), tuple(paths))
    if spec.kind in MARKED:
        return await capture.signature(spec, tuple(paths))
    return await of_database(spec.name, Path(spec.path))


async def of_staged(spec: SourceSpec, directory: Path) -> Signature:
    """Return the signature that the source will have once `directory` has gone live."""
    if spec.kind == "files":
        return await to_thread.run_sync(_of_directory, directory)
    if spec.kind in MARKED:
        return await capture.signature_of(spec, directory)
    return await of_database(spec.name, await to_thread.run_sync(single_file, directory))


async def of_kept(
    spec: SourceSpec, kept: KeptCopy, directory: Path, paths: Iterable[str]
) -> Signature:
    """Return the signature of what an undo point holds.

    A database's is that of the kept copy itself: rows written since are not in it, and a live
    file that has them is neither old nor new.
    """
    if spec.kind in PIECEWISE | SERVED:
        return await of_live(spec, paths)
    if spec.kind in MARKED:
        marks = await capture.signature_of(spec, directory)
        return {path: marks.get(path, ABSENT) for path in paths}
    if kept.state != "present":
        return {DATABASE: ABSENT if kept.state == "absent" else DAMAGED}
    if kept.content:
        return {DATABASE: kept.content}
    images = await to_thread.run_sync(lambda: [p for p in directory.iterdir() if p.suffix == ""])
    assert len(images) == 1, images
    return await of_database(spec.name, images[0])


async def of_database(name: str, path: Path) -> Signature:
    """Return the signature of a database file."""
    try:
        return {DATABASE: await capture.content_digest(name, path)}
    except SourceMissing:
        return {DATABASE: ABSENT}
    except SourceUnreadable:
        return {DATABASE: DAMAGED}


def single_file(directory: Path) -> Path:
    """Return the one file in the directory of a database's staged copy.

    Raises:
        SourceUnreadable: there are several, or none.
    """
    files = [path for path in directory.iterdir() if path.is_file() and not path.is_symlink()]
    if len(files) != 1:
        raise SourceUnreadable(f"{directory} holds {len(files)} files, and a database is one")
    return files[0]


def of_files(root: Path, paths: Iterable[str]) -> Signature:
    """Return the signature of these paths below `root`; links are not followed on the way."""
    return {path: _of_path(root, path) for path in paths}


def _of_directory(root: Path) -> Signature:
    return of_files(root, paths_below(root))


def paths_below(root: Path) -> list[str]:
    """Return all paths below `root`, relative, with "/" between the parts, parents first."""
    found: list[str] = []
    for place, directories, files in os.walk(root):
        relative = os.path.relpath(place, root)
        prefix = "" if relative == "." else f"{relative}/"
        found += [prefix + name for name in sorted(directories) + sorted(files)]
    return found


def _of_path(root: Path, path: str) -> str:
    *above, name = path.split("/")
    try:
        live = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with beneath.directory(live, tuple(above)) as directory:
                return _of_name(directory, name)
        finally:
            os.close(live)
    except FileNotFoundError:
        return ABSENT
    except PermissionError:
        return "unreadable"
    except OSError as error:
        if error.errno not in beneath.GONE:
            raise
        return "elsewhere"  # a file or a link where the path wants a directory


def _of_name(directory: int, name: str) -> str:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        return f"link:{os.readlink(name, dir_fd=directory)}"
    if stat.S_ISDIR(found.st_mode):
        return f"{_DIRECTORY}{found.st_mode & 0o777:o}"
    if not stat.S_ISREG(found.st_mode):
        return "other"
    with FileIO(beneath.open_file(directory, name)) as file:
        return f"file:{os.fstat(file.fileno()).st_mode & 0o777:o}:{of_file(file)}"
