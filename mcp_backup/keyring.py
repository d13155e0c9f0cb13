"""The keys of a repository: which passwords open it, and changing that.

Only the terminal calls this; no tool gets near it. Passwords come in as `Secret` and go
nowhere but into a key file.
"""

from datetime import datetime

from anyio import to_thread
from msgspec import Struct

from mcp_backup.engine import Engine
from mcp_backup.errors import IntegrityError, UsageError, WrongPassword
from mcp_backup.format.ids import KeyId
from mcp_backup.kit_record import load_record
from mcp_backup.place import Place
from mcp_backup.recording import recorded
from mcp_backup.repository.keys import (
    add_key,
    find_key,
    load_key_file,
    remove_key,
    work_for,
)
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.objects import identity_in, object_name
from mcp_backup.secret import Secret

_SHORTEST = 8  # digits of an id that name a key: what restic shows


class ListedKey(Struct, frozen=True):
    """One key file. `damaged` says why it opens nothing; `kit`: its password is on the kit."""

    key_id: str
    created: datetime | None
    username: str
    hostname: str
    current: bool
    kit: bool
    damaged: str = ""


class KeyChange(Struct, frozen=True):
    """What became of one key, and how many there are now."""

    key_id: str
    done: str
    keys: int
    advice: str = ""


async def list_keys(engine: Engine) -> tuple[ListedKey, ...]:
    """Return all keys, oldest first, damaged ones last."""
    repository = engine.repository
    record = await to_thread.run_sync(load_record, engine.state)
    kit = record.key_id if record else ""
    found, damaged = [], []
    for name in await repository.store.objects("keys/"):
        identity = KeyId(identity_in(name))
        current, in_kit = identity == repository.key_id, identity.hex() == kit
        try:
            key = await load_key_file(repository.store, name)
        except IntegrityError as error:
            damaged.append(ListedKey(identity.hex(), None, "", "", current, in_kit, str(error)))
        else:
            found.append(
                ListedKey(identity.hex(), key.created, key.username, key.hostname, current, in_kit)
            )
    return (*sorted(found, key=lambda key: (key.created, key.key_id)), *damaged)


@recorded("key-add")
async def add(engine: Engine, password: Secret, place: Place, *, generated: bool) -> KeyChange:
    """Add a key that `password` opens, and prove that it does. A cancel leaves it whole or absent.

    Raises:
        UsageError: the password opens the repository already.
        RepositoryLocked: somebody is at work in the repository alone, and was for a minute.
    """
    repository, text = engine.repository, password.reveal()
    async with locked(repository, wait=PATIENCE_SECONDS):
        existing = await _opened_by(engine, text)
        if existing is not None:
            raise UsageError(
                f"this password opens the repository already, by key {existing.hex()[:8]}",
                hint="Choose another. Nothing was added.",
            )
        added = await add_key(
            repository.store,
            repository.key,
            text,
            created=repository.now(),
            username=repository.username,
            hostname=repository.hostname,
            work=work_for(generated_password=generated),
            random=place.random,
        )
        _, master = await find_key(repository.store, text)
        if master != repository.key:
            raise IntegrityError(
                f"{object_name('keys', added)}: the key just added does not open the repository",
                hint="Run `mcp-backup check`. The other keys are as they were.",
            )
        keys = len(await repository.store.objects("keys/"))
    advice = "to use it, set its password in the settings; then make a new recovery kit"
    return KeyChange(added.hex(), "added", keys, advice)


async def _opened_by(engine: Engine, password: str) -> KeyId | None:
    try:
        return (await find_key(engine.repository.store, password))[0]
    except (WrongPassword, IntegrityError):  # a damaged key file opens for nobody
        return None


async def find_listed(engine: Engine, wanted: str) -> ListedKey:
    """Return the key that an id, or the beginning of one, names.

    Raises:
        UsageError: none does, or several do.
    """
    keys = await list_keys(engine)
    short = len(wanted) < _SHORTEST
    matches = [] if short else [key for key in keys if key.key_id.startswith(wanted.lower())]
    if len(matches) != 1:
        raise UsageError(
            f"{wanted!r:.80} names {len(matches) or 'none'} of the {len(keys)} keys",
            hint=f"Use an id of `mcp-backup key list`, at least {_SHORTEST} digits of it. "
            "Nothing was changed.",
        )
    return matches[0]


@recorded("key-remove")
async def remove(engine: Engine, key_id: str) -> KeyChange:
    """Remove a key, so that its password opens nothing any more.

    Whoever kept a copy of the repository from before can still open that with it.

    Raises:
        UsageError: no such key, the only one, or the one in use.
        RepositoryLocked: somebody is at work in the repository, and was for a minute.
    """
    repository = engine.repository
    async with locked(repository, exclusive=True, wait=PATIENCE_SECONDS):
        key = await find_listed(engine, key_id)
        identity = KeyId(bytes.fromhex(key.key_id))
        await remove_key(repository.store, identity, in_use=repository.key_id)
        keys = len(await repository.store.objects("keys/"))
    advice = (
        "the recovery kit held its password: make a new one, destroy the old" if key.kit else ""
    )
    return KeyChange(key.key_id, "removed", keys, advice)
