"""The composition root: from settings to an open engine, or to a new repository.

The only place that puts clock, host, environment and store together.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile

from anyio import to_thread

from mcp_backup.durable import create_durably, make_directory_durably
from mcp_backup.engine import Engine
from mcp_backup.errors import RepositoryExists, SettingsInvalid
from mcp_backup.place import Place
from mcp_backup.repository.repository import create_repository, open_repository
from mcp_backup.secret import Secret
from mcp_backup.settings import Settings, repository_password
from mcp_backup.store.append_only import AppendOnlyStore
from mcp_backup.store.location import create_store, open_store
from mcp_backup.store.store import Store
from mcp_backup.verbs import InitReport

_PASSWORD_BYTES = 32  # random, so the key file needs no costly work factor


@asynccontextmanager
async def opened(
    settings: Settings, place: Place | None = None, store: Store | None = None
) -> AsyncIterator[Engine]:
    """Open the repository that the settings name, or the one in `store`; provide its engine.

    A restore that a crash interrupted is finished or rolled back first.

    Raises:
        RepositoryMissing, WrongPassword, UnsupportedFormat, IntegrityError: see
            `open_repository`.
        SettingsInvalid: the settings name no usable password or state directory.
    """
    here = place or Place.here()
    password = await to_thread.run_sync(_password, settings, here)
    repository = await open_repository(
        _store(settings, store),
        password,
        now=here.now,
        hostname=here.hostname,
        username=here.username,
    )
    engine = Engine(settings, repository, here)
    await to_thread.run_sync(_make_state_directory, engine.state)
    await engine.recover()
    yield engine


async def initialise(settings: Settings, place: Place | None = None) -> InitReport:
    """Make the repository, and the password file if it is named and missing.

    An existing repository that the password opens is left as it is, and reported as found.

    Raises:
        WrongPassword: there is a repository, and it has another password.
        SettingsInvalid: no password file is named and no other password given.
    """
    here = place or Place.here()
    generated = await to_thread.run_sync(_make_password_file, settings, here)
    password = await to_thread.run_sync(_password, settings, here)
    store = await create_store(settings.repository.location)
    created = True
    try:
        repository = await create_repository(
            store,
            password,
            random=here.random,
            now=here.now,
            hostname=here.hostname,
            username=here.username,
            generated_password=generated,
        )
    except RepositoryExists:
        created = False
        repository = await open_repository(
            store, password, now=here.now, hostname=here.hostname, username=here.username
        )
    return InitReport(
        location=store.location,
        repository_id=repository.config.id,
        created=created,
        password_file=str(settings.repository.password_file or ""),
    )


def _store(settings: Settings, store: Store | None) -> Store:
    found = store or open_store(settings.repository.location)
    return AppendOnlyStore(found) if settings.repository.append_only else found


def _password(settings: Settings, place: Place) -> str:
    return repository_password(settings, place.environ).reveal()


def _make_state_directory(state: Path) -> None:
    try:
        make_directory_durably(state)
        with TemporaryFile(dir=state):
            pass
    except OSError as error:
        raise SettingsInvalid(
            f"the state directory {state}: {(error.strerror or str(error)).lower()}",
            hint="Make it writable for this user, make room on its disk, or name another as "
            "`state_dir` in the settings. Nothing was changed.",
        ) from error


def _make_password_file(settings: Settings, place: Place) -> bool:
    """Write a random password where the settings want one; tell whether it was us."""
    file: Path | None = settings.repository.password_file
    if file is None or file.exists() or place.environ.get("MCP_BACKUP_PASSWORD"):
        return False
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new_password(file)
    except OSError as error:
        raise SettingsInvalid(
            f"repository.password_file: {file} cannot be written: {error.strerror}",
            hint="Name another place for it, or make the directory writable. Nothing was made.",
        ) from error
    return True


def write_new_password(file: Path) -> Secret:
    """Make a random password, and `file` with it, which must not exist; 0600. Blocks.

    Raises:
        OSError: it exists, or cannot be written.
    """
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    create_durably(file, password.encode() + b"\n", mode=0o600)
    return Secret(password)
