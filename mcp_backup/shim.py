"""A `mahavishnu` for the PATH: `mahavishnu mcp call` is ours, all else is the real one's.

It is no script of this distribution, since two wheels with one script overwrite each other.
"""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from mcp_backup.durable import write_durably
from mcp_backup.errors import StoreDenied, UsageError

NAME = "mahavishnu"
_MARK = "# made by mcp-backup install-shim"
_SCRIPT = f"""\
#!/bin/sh
{_MARK}
if [ "$1" = mcp ] && [ "$2" = call ]; then
    shift 2
    exec {{program}} call "$@"
fi
IFS=:
for directory in $PATH; do
    other="${{{{directory:-.}}}}/{NAME}"
    if [ -f "$other" ] && [ -x "$other" ] && ! grep -q '^{_MARK}$' "$other"; then
        exec "$other" "$@"
    fi
done
echo "{NAME} is not installed; only \\`{NAME} mcp call\\` works, through mcp-backup" >&2
exit 127
"""


class Shim(Struct, frozen=True):
    """The shim as installed; `found` tells whether it is what `mahavishnu` on the PATH means."""

    path: str
    found: bool


def install_shim(directory: Path, program: Sequence[str], path: str) -> Shim:
    """Write the shim, which runs `program`, into a directory; `path` is the PATH.

    Raises:
        UsageError: there is another `mahavishnu` in the directory.
        StoreDenied: it cannot be written there.
    """
    file = directory / NAME
    if (file.exists() or file.is_symlink()) and not _is_shim(file):
        raise UsageError(
            f"{file} is there already, and no shim",
            hint="Choose with --dir another directory, one that comes before it on the PATH. "
            "Nothing was changed.",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = _SCRIPT.format(program=shlex.join(program))
        write_durably(file, text.encode(errors="surrogateescape"), 0o755)
    except OSError as error:
        raise StoreDenied(
            f"{file}: {error.strerror}",
            hint="Choose with --dir a directory that you may write to. Nothing was changed.",
        ) from error
    first = shutil.which(NAME, path=path)
    return Shim(str(file), first is not None and os.path.samefile(first, file))


def _is_shim(file: Path) -> bool:
    try:
        return _MARK.encode() in file.read_bytes()
    except OSError:
        return False
