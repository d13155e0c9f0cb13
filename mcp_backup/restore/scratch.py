"""The scratch directory: temporary copies, and restores to scratch. Nothing live is touched.

    <scratch>/.work_<chance>.partial    temporary copies; locked by the process that works there
    <scratch>/.<restore_id>.partial     a restore while it is being made; locked likewise
    <scratch>/<restore_id>              complete

A restore's directory gets its name last, so what has the name is whole. What a crash leaves in the
others, copies of live data among it, is removed when an engine is next opened.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread

from mcp_backup.durable import replace_durably
from mcp_backup.restore.examining import Means, refuse, stage_source
from mcp_backup.restore.plan import Choice, Origin, live_file
from mcp_backup.restore.stager import stage
from mcp_backup.restore.workspace import half_made, make_partial, remove_tree
from mcp_backup.sources.source import Component
from mcp_backup.verbs_restores import RestoredTarget

_SNAPSHOT = "snapshot"  # where a snapshot without sources goes


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
    for path in half_made(scratch):
        if _abandoned(path):
            remove_tree(path)
            swept.append(path)
    return swept


@asynccontextmanager
async def _partial(scratch: Path, identity: str) -> AsyncIterator[Path]:
    """Provide the directory in the making; give it its name when the block ends well."""
    partial = scratch / f".{identity}.partial"
    descriptor = await to_thread.run_sync(make_partial, partial)
    try:
        yield partial
        await to_thread.run_sync(replace_durably, partial, scratch / identity)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(remove_tree, partial)
        raise
    finally:
        os.close(descriptor)


def _abandoned(partial: Path) -> bool:
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
