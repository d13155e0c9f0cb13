"""The scratch directory as a place to work in, and what a crash may have left to be put right.

Little needs to be loaded for it: every backup works there, and every start looks whether there is
anything to recover.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import anyio
from anyio import to_thread

from mcp_backup.durable import make_directory_durably
from mcp_backup.errors import BackupError, SettingsInvalid, StoreFull
from mcp_backup.sources.confined import held

_PARTIAL = re.compile(r"\.(restore_[0-9]{8}_[0-9]{6}_[0-9a-f]{8}|work_[0-9a-f]{16})\.partial")
RESTORES = "restores"  # in the state directory: restores under way, and their undo points


@asynccontextmanager
async def workspace(scratch: Path) -> AsyncIterator[Path]:
    """Provide an empty directory below `scratch`, which is made if it is missing.

    It is gone after the block, however that ends; after a crash, `sweep_scratch` removes it.

    Raises:
        StoreFull, SettingsInvalid: it cannot be made; the message names `scratch`.
    """
    path = await to_thread.run_sync(_workplace, scratch)
    descriptor = await to_thread.run_sync(make_partial, path)
    try:
        yield path
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_remove, path, descriptor)


def half_made(scratch: Path) -> list[Path]:
    """Return what is being made in the scratch directory, or was left there half made."""
    try:
        return sorted(path for path in scratch.iterdir() if _PARTIAL.fullmatch(path.name))
    except FileNotFoundError:
        return []


def anything_left(state: Path, scratch: Path) -> bool:
    """Whether there is anything that a crash may have left, for the restorer to judge."""
    restores = state / RESTORES
    return bool(half_made(scratch)) or (restores.is_dir() and any(restores.iterdir()))


def make_partial(partial: Path) -> int:
    """Make a directory in the making, locked as this process's; return the lock.

    Raises:
        StoreFull, SettingsInvalid: it cannot be made; the message names the directory above.
    """
    try:
        make_directory_durably(partial.parent)
        with held(partial.parent) as scratch:
            os.mkdir(partial.name, 0o700, dir_fd=scratch)
    except OSError as error:
        raise _refused(partial.parent, error) from error
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def remove_tree(directory: Path) -> None:
    """Remove a directory of ours, those in it that may not be entered included.

    A link in its place is removed, and not what it leads to.
    """

    def permitted(function: Any, path: str, _error: object) -> None:
        Path(path).parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
        function(path)

    if directory.is_symlink():
        directory.unlink()
    elif directory.exists():
        shutil.rmtree(directory, onerror=permitted)


def _workplace(scratch: Path) -> Path:
    return Path(os.path.realpath(scratch)) / f".work_{token_hex(8)}.partial"


def _remove(partial: Path, descriptor: int) -> None:
    try:
        remove_tree(partial)
    finally:
        os.close(descriptor)


def _refused(scratch: Path, error: OSError) -> BackupError:
    fact = f"the scratch directory {scratch}: {(error.strerror or str(error)).lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(fact, hint="Free some space there, then try again. Nothing was changed.")
    return SettingsInvalid(
        fact,
        hint="Make it writable for this user, or name another directory as `restore.scratch` in "
        "the settings. Nothing was changed.",
    )
