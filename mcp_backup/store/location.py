"""From what the settings call a location to a store."""

import re
from pathlib import Path

from mcp_backup.errors import SettingsInvalid
from mcp_backup.store.local import LocalStore
from mcp_backup.store.store import Store

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(location: str) -> Store:
    """Return the store at `location`: an absolute path. Nothing is looked at or made yet.

    Raises:
        SettingsInvalid: it is a URL, or no absolute path.
    """
    return _local(location)


async def create_store(location: str) -> Store:
    """Return the store at `location` with its directories made, where they were missing.

    Raises:
        SettingsInvalid: as `open_store`.
        StoreDenied, StoreFull, StoreUnavailable: they cannot be made.
    """
    store = _local(location)
    await store.create_layout()
    return store


def _local(location: str) -> LocalStore:
    scheme = _SCHEME.match(location)
    if scheme:  # the rest of a URL may hold a password
        raise SettingsInvalid(
            f"repository.location begins with {scheme[1]}://, which this version cannot use",
            hint="Object stores follow in a later version; name a local directory.",
        )
    path = Path(location)
    if not path.is_absolute():
        raise SettingsInvalid(
            f"repository.location is {location!r}, not an absolute path",
            hint="Write the directory's path in full.",
        )
    return LocalStore(path)
