"""The scratch directory: temporary copies, and restores to scratch. Nothing live is touched.

    <scratch>/.work_<chance>.partial    temporary copies; locked by the process that works there
    <scratch>/.<restore_id>.partial     a restore while it is being made; locked likewise
    <scratch>/<restore_id>              complete

A restore's directory gets its name last, so what has the name is whole. What a crash leaves in the
others, copies of live data among it, is removed when an engine is next opened.
"""

import errno
import fcntl
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex

import anyio
from anyio import to_thread

from mcp_backup.durable import make_directory_durably, replace_durably
from mcp_backup.errors import BackupError, SettingsInvalid, StoreFull
from mcp_backup.restore.examining import Means, refuse, stage_source
from mcp_backup.restore.plan import Choice, Origin, live_file
from mcp_backup.restore.stager import stage
from mcp_backup.restore.swap import remove_tree
from mcp_backup.sources.confined import held
from mcp_backup.sources.source import Component
from mcp_backup.verbs import RestoredTarget

_PARTIAL = re.compile(r"\.(restore_[0-9]{8}_[0-9]{6}_[0-9a-f]{8}|work_[0-9a-f]{16})\.partial")
_SNAPSHOT = "snapshot"  # where a snapshot without sources goes


@asynccontextmanager
async def workspace(scratch: Path) -> AsyncIterator[Path]:
    """Provide an empty directory below `scratch`, which is made if it is missing.

    It is gone after the block, however that ends; after a crash, `sweep_scratch` removes it.

    Raises:
        StoreFull, SettingsInvalid: it cannot be made; the message names `scratch`.
    """
    path = await to_thread.run_sync(_workplace, scratch)
    descriptor = await to_thread.run_sync(_make, path)
    try:
        yield path
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_remove, path, descriptor)


async def restore_to_scratch(
    means: Means, origin: Origin, choices: Sequence[Choice], scratch: Path, identity: str
) -> tuple[RestoredTarget, ...]:
    """Stage into `scratch`/`identity`; without choices, the whole snapshot, unexamined.

    A failure, cancel or crash leaves no directory of that name.

    Raises:
        StagingRejected, IntegrityError: what is stored is not what was captured.
        RestoreError, StoreFull, SettingsInvalid: scratch cannot be written, or is too small.
    """
    targets = []
    async with _partial(scratch, identity) as partial:
        for choice in choices:
            record = choice.record
            near = means.beside(live_file(choice))
            staged = await stage_source(near, origin.tree, record, partial / choice.key)
            refuse(record, staged)
            path = str(scratch / identity / choice.key)
            targets.append(RestoredTarget(record.name, record.component, path, staged.size))
        if not choices:
            size = await stage(means.repository, origin.tree, partial / _SNAPSHOT, means.write)
            path = str(scratch / identity / _SNAPSHOT)
            targets.append(RestoredTarget(origin.backup_id, Component.CONFIG, path, size))
    return tuple(targets)


def sweep_scratch(scratch: Path) -> list[Path]:
    """Remove what crashed restores left half made; those that are still being made are locked."""
    swept: list[Path] = []
    with suppress(FileNotFoundError):
        for path in sorted(scratch.iterdir()):
            if _PARTIAL.fullmatch(path.name) and _abandoned(path):
                remove_tree(path)
                swept.append(path)
    return swept


@asynccontextmanager
async def _partial(scratch: Path, identity: str) -> AsyncIterator[Path]:
    """Provide the directory in the making; give it its name when the block ends well."""
    partial = scratch / f".{identity}.partial"
    descriptor = await to_thread.run_sync(_make, partial)
    try:
        yield partial
        await to_thread.run_sync(replace_durably, partial, scratch / identity)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(remove_tree, partial)
        raise
    finally:
        os.close(descriptor)


def _workplace(scratch: Path) -> Path:
    return Path(os.path.realpath(scratch)) / f".work_{token_hex(8)}.partial"


def _make(partial: Path) -> int:
    try:
        make_directory_durably(partial.parent)
        with held(partial.parent) as scratch:
            os.mkdir(partial.name, 0o700, dir_fd=scratch)
    except OSError as error:
        raise _refused(partial.parent, error) from error
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


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


def _abandoned(partial: Path) -> bool:
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
