"""The names of a repository's objects, and errors that begin with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.ids import PackId

Directory = Literal["index", "keys", "locks", "snapshots"]

DAMAGED = (
    "Run `mcp-backup check --level data` to see what is affected. Nothing was changed; a copy of "
    "the repository may still have this object intact."
)


def object_name(directory: Directory, identity: bytes) -> str:
    """Return the name of an object that is not a pack."""
    return f"{directory}/{identity.hex()}"


def pack_name(pack: PackId) -> str:
    """Return the name of a pack."""
    digits = pack.hex()
    return f"data/{digits[:2]}/{digits}"


def identity_in(name: str) -> bytes:
    """Return the id that a name ends with."""
    return bytes.fromhex(name.rpartition("/")[2])


@contextmanager
def about(name: str, hint: str = DAMAGED) -> Iterator[None]:
    """Make every error about bytes that the block raises begin with the object's name."""
    try:
        yield
    except (IntegrityError, UnsupportedFormat) as error:
        message = str(error)
        if name in message:
            raise
        raise type(error)(f"{name}: {message}", hint=error.hint or hint) from error
