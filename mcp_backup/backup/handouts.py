"""Handouts: copies that the program which owns a database makes of it itself, in its own process.

A program that backs itself up has the database open. Nobody else may open a DuckDB file then, and
it knows best when it is in one state. So it registers a function that writes a consistent copy
into a directory; what is captured is that copy.

    exact     one database of the source's kind lies in the directory afterwards, or it failed
    bounded   a function that takes longer than `SECONDS` is cancelled, and the source has failed
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

import anyio
from anyio import to_thread

from mcp_backup.errors import SourceBusy, SourceError
from mcp_backup.repository.repository import Repository
from mcp_backup.sources.source import SourceSpec

Handout = Callable[[Path], Awaitable[None]]
SECONDS = 300.0
_SIDES = (".wal", "-wal", "-shm", "-journal")
_registered: WeakKeyDictionary[Repository, dict[str, Handout]] = WeakKeyDictionary()


def register(repository: Repository, handouts: dict[str, Handout]) -> None:
    """Have these databases, by the names of their sources, handed out for all backups into it."""
    _registered.setdefault(repository, {}).update(handouts)


def handout_of(repository: Repository, spec: SourceSpec) -> Handout | None:
    """Return what hands out a copy of the database `spec`, if its owner registered it."""
    return _registered.get(repository, {}).get(spec.name)


async def handed_out(
    handout: Handout, spec: SourceSpec, directory: Path, seconds: float = SECONDS
) -> Path:
    """Have a copy written into the new directory `directory`; return where it is.

    Raises:
        SourceBusy: it took too long.
        SourceError: the function failed, or wrote no copy, or several.
    """
    await to_thread.run_sync(directory.mkdir)
    try:
        with anyio.fail_after(seconds):
            await handout(directory)
    except TimeoutError as error:
        raise SourceBusy(
            f"source {spec.name!r}: the program that owns it handed out no copy in {seconds:g} s",
            hint="Have it wait less before it copies. The source was not backed up.",
        ) from error
    except Exception as error:  # whatever a function of somebody else's may raise
        raise SourceError(
            f"source {spec.name!r}: the program that owns it handed out no copy: "
            f"{type(error).__name__}: {error}",
            hint="See that program's log. The source was not backed up.",
        ) from error
    return await to_thread.run_sync(_only, spec, directory)


async def clear(directory: Path) -> None:
    """Remove the copy."""

    def remove() -> None:
        with suppress(FileNotFoundError):
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()

    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(remove)


def _only(spec: SourceSpec, directory: Path) -> Path:
    found = [path for path in directory.iterdir() if not path.name.endswith(_SIDES)]
    if len(found) != 1:
        raise SourceError(
            f"source {spec.name!r}: the program that owns it handed out {len(found)} files, "
            "and a copy is one",
            hint="Correct its function: it writes one database into the directory it is given.",
        )
    wanted = directory / Path(spec.path).name
    for path in list(directory.iterdir()):  # under the name it has where it lives
        side = path.name.removeprefix(found[0].name)
        path.rename(wanted.with_name(wanted.name + side))
    return wanted
