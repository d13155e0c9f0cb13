"""The undo point of an undo: what is live now at the paths that a restore had written.

A restore's undo point is kept by its source, from what is staged. An undo stages nothing; what
it will change is what that restore changed, so the same paths are kept, whatever is there now.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mcp_backup.sources import beneath
from mcp_backup.sources.confined import real_path
from mcp_backup.sources.keeping import keep
from mcp_backup.sources.placement import Action, Step, Was
from mcp_backup.sources.source import SourceSpec


def keep_paths(spec: SourceSpec, paths: Sequence[str], directory: Path) -> None:
    """Keep what is live at `paths` of a file set so that the source's `put_back` can restore it.

    Directories are kept without what is in them, unless that is among `paths` too.

    Raises:
        RestoreError: something cannot be copied; nothing live was touched.
    """
    root = Path(real_path(spec))
    keep([_step(root, path) for path in paths], root, directory)


def _step(root: Path, path: str) -> Step:
    was = _was(root, path)
    action: Action = "set-dir" if was == "dir" else "put-file"
    return Step(action, path, was)


def _was(root: Path, path: str) -> Was:
    *above, name = path.split("/")
    try:
        live = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return "absent"
    try:
        with beneath.directory(live, tuple(above)) as parent:
            found = beneath.status(parent, name)
    except OSError as error:
        if error.errno not in beneath.GONE:
            raise
        return "absent"
    finally:
        os.close(live)
    if found is None:
        return "absent"
    if stat.S_ISDIR(found.st_mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(found.st_mode) else "file"
