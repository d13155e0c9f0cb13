"""Databases of drills on servers: made for one copy, held while it is drilled, then dropped.

    <state>/drilling/<chance>/source.json      the source, as the drill reaches its server
    <state>/drilling/<chance>/.database.json   the database, from before it is made

A drill, and the worker that makes its database, hold a lock on the directory, which a kill lets
go. So whoever finds it unlocked knows that nobody drills there any more, and drops what is noted;
what the directory does not note is nobody's of ours.
"""

import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

from anyio import CancelScope, move_on_after, to_thread
from filelock import FileLock
from msgspec import Struct

from mcp_backup.durable import make_directory_durably, write_durably
from mcp_backup.errors import BackupError, IntegrityError
from mcp_backup.record import asdict
from mcp_backup.restore.workspace import remove_tree
from mcp_backup.settings_postgres import for_drills
from mcp_backup.sources import capture
from mcp_backup.sources.source import SourceSpec
from mcp_backup.sources.wire import spec_of

logger = logging.getLogger(__name__)

_SOURCE = "source.json"
_TURN = "turn.lock"
_PATIENCE_SECONDS = 60.0  # for a server to drop what a drill made


class Ground(Struct):
    """Where one copy is loaded: the source as drills reach it, and the directory that notes it.

    `left` says, afterwards, what could not be dropped.
    """

    spec: SourceSpec
    directory: Path
    left: str = ""


@asynccontextmanager
async def ground(state: Path, spec: SourceSpec) -> AsyncIterator[Ground]:
    """Provide a place on the source's server, or on the one for drills, for the block.

    What was made there is dropped afterwards, however the block ends; what a kill, or a server
    that went away, leaves, the next drill drops.
    """
    found = Ground(for_drills(spec), state / "drilling" / token_hex(8))
    descriptor = await to_thread.run_sync(_noted, found)
    try:
        yield found
    finally:
        with CancelScope(shield=True):
            found.left = await _dropped(found.spec, found.directory)
            os.close(descriptor)


async def clear(state: Path) -> None:
    """Drop what killed drills left on servers; what cannot be dropped now stays on record."""
    for directory, descriptor in await to_thread.run_sync(_abandoned, state):
        try:
            try:
                spec = await to_thread.run_sync(_read, directory)
            except IntegrityError as error:
                logger.warning("a drill's leavings stay: %s %s", error, error.hint)
                continue
            if spec is None:  # killed before anything was noted
                await to_thread.run_sync(remove_tree, directory)
            elif not await _dropped(spec, directory):
                logger.info("cleared away after a drill that was killed: source=%s", spec.name)
        finally:
            os.close(descriptor)


async def _dropped(spec: SourceSpec, directory: Path) -> str:
    """Drop what is noted in the directory, and that too; say why not, or ""."""
    why = f"{spec.path} does not answer"
    with move_on_after(_PATIENCE_SECONDS):
        try:
            await capture.discard(spec, directory)
            await to_thread.run_sync(remove_tree, directory)
        except BackupError as error:
            why = str(error)
        else:
            return ""
    logger.warning("a drill's database is left: source=%s: %s", spec.name, why)
    return f"its database on {spec.path} could not be dropped, which the next drill will do: {why}"


def _noted(found: Ground) -> int:
    """Make the directory, locked before it can be mistaken for left over."""
    make_directory_durably(found.directory.parent)
    with FileLock(found.directory.parent / _TURN):
        make_directory_durably(found.directory)
        descriptor = _opened(found.directory)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # beside the worker's
    write_durably(found.directory / _SOURCE, json.dumps(asdict(found.spec)).encode())
    return descriptor


def _abandoned(state: Path) -> list[tuple[Path, int]]:
    """Return the directories that nobody holds, now held by us."""
    drilling, found = state / "drilling", list[tuple[Path, int]]()
    if not drilling.is_dir():
        return []
    with FileLock(drilling / _TURN):
        for directory in sorted(path for path in drilling.iterdir() if path.is_dir()):
            try:
                descriptor = _opened(directory)
            except FileNotFoundError:  # whoever made it has just ended
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            found.append((directory, descriptor))
    return found


def _opened(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _read(directory: Path) -> SourceSpec | None:
    """Return whose database is noted in a directory; None when nothing is.

    Raises:
        IntegrityError: what is noted is not what we wrote.
    """
    try:
        noted = json.loads((directory / _SOURCE).read_bytes())
        return spec_of({**noted, "name": str(noted["name"]), "path": str(noted["path"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            f"{directory / _SOURCE} does not say whose database a drill left: {error!s:.100}",
            hint="Look on the servers for databases named …_drill_…, drop them, then remove this "
            "directory.",
        ) from error
