"""The names a repository's objects can have, and no others.

    config
    keys/<id>  locks/<id>  snapshots/<id>  index/<id>
    data/<xx>/<id>            xx = the first two digits of <id>

An id is 64 lower-case hexadecimal digits. Source: restic design, "Repository Layout".
"""

import re

from mcp_backup.errors import UsageError

DIRECTORIES = ("keys", "locks", "snapshots", "index", "data")
PACK_DIRECTORIES = tuple(f"data/{number:02x}" for number in range(256))

_NAME = re.compile(
    r"config|(?:keys|locks|snapshots|index)/[0-9a-f]{64}|data/([0-9a-f]{2})/\1[0-9a-f]{62}"
)
_PREFIX = re.compile(r"|(?:keys|locks|snapshots|index)/|data/(?:[0-9a-f]{2}/)?")


def is_object_name(name: str) -> bool:
    """Tell whether an object of a repository can have this name."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """Return `name`.

    Raises:
        UsageError: no object can have it: not a name of the layout, whatever `..` or `/` is in it.
    """
    if not is_object_name(name):
        raise UsageError(
            f"{name!r:.120} is not a name an object of a repository can have",
            hint="Use an id as it is listed: 64 hexadecimal digits. Nothing was read or written.",
        )
    return name


def checked_prefix(prefix: str) -> str:
    """Return `prefix`.

    Raises:
        UsageError: it is neither empty nor one of the layout's directories with a final "/".
    """
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"{prefix!r:.120} is not a directory of a repository")
    return prefix
