"""Keys: one file per password, each holding the same master key.

Key files are plain JSON, named by their bytes, and the master key in them is sealed with what
scrypt makes of a password. A damaged key file does no harm while another one opens.
"""

from collections.abc import Callable
from datetime import datetime

from anyio import to_thread
from msgspec import Struct

from mcp_backup.errors import IntegrityError, UnsupportedFormat, UsageError, WrongPassword
from mcp_backup.format.crypto import MasterKey
from mcp_backup.format.document import Document
from mcp_backup.format.ids import KeyId, digest
from mcp_backup.format.key import (
    CHEAP,
    STRONG,
    ScryptWork,
    encode_key_file,
    open_key_file,
)
from mcp_backup.format.times import parse_datetime
from mcp_backup.repository.objects import about, identity_in, object_name
from mcp_backup.store.store import Store

_TRIES = 20  # as restic: half a second each, so that a directory of junk cannot keep us for hours


class KeyFile(Struct, frozen=True):
    """What a key file says about itself, to whoever can read it."""

    id: KeyId
    created: datetime
    username: str
    hostname: str


def work_for(*, generated_password: bool) -> ScryptWork:
    """Return the work that guessing this kind of password should cost."""
    return CHEAP if generated_password else STRONG


async def find_master_key(store: Store, password: str) -> MasterKey:
    """Return the master key that `password` opens; see `find_key`."""
    return (await find_key(store, password))[1]


async def find_key(store: Store, password: str) -> tuple[KeyId, MasterKey]:
    """Return the key file that `password` opens and what is in it, trying them in listing order.

    Raises:
        WrongPassword: all key files are in order, and it opens none of them.
        IntegrityError, UnsupportedFormat: it opens none, and a key file could not be tried.
    """
    names = list(await store.objects("keys/"))
    problem: IntegrityError | UnsupportedFormat | None = None
    for name in names[:_TRIES]:
        try:
            data = await _load(store, name)
            with about(name):
                master = await to_thread.run_sync(open_key_file, data, password)
        except (IntegrityError, UnsupportedFormat) as error:
            problem = problem or error
            continue
        if master is not None:
            return KeyId(identity_in(name)), master
    raise problem or WrongPassword(store.location, len(names[:_TRIES]))


async def key_files(store: Store) -> list[KeyFile]:
    """Return what each key file says about itself, oldest first.

    Raises:
        IntegrityError: one is damaged.
    """
    found = [await load_key_file(store, name) for name in await store.objects("keys/")]
    return sorted(found, key=lambda key: key.created)


async def load_key_file(store: Store, name: str) -> KeyFile:
    """Return what one key file says about itself.

    Raises:
        IntegrityError: it is damaged.
    """
    data = await _load(store, name)
    with about(name):
        return _described(KeyId(identity_in(name)), data)


async def add_key(  # noqa: PLR0913 - a key file has these members
    store: Store,
    master: MasterKey,
    password: str,
    *,
    created: datetime,
    username: str,
    hostname: str,
    work: ScryptWork,
    random: Callable[[int], bytes],
) -> KeyId:
    """Store a key file that opens `master` with `password`. A cancel leaves it whole or absent."""

    def encode() -> bytes:
        return encode_key_file(
            master,
            password,
            created=created,
            username=username,
            hostname=hostname,
            work=work,
            random=random,
        )

    data = await to_thread.run_sync(encode)
    identity = KeyId(digest(data))
    await store.put(object_name("keys", identity), data)
    return identity


async def remove_key(store: Store, identity: KeyId, *, in_use: KeyId | None) -> None:
    """Delete a key file; the caller holds the repository's exclusive lock.

    Raises:
        UsageError: it is the only one, or the one in use; nothing was deleted.
    """
    names = await store.objects("keys/")
    short = identity.hex()[:8]
    if names.keys() <= {object_name("keys", identity)}:
        raise UsageError(
            f"key {short} is the only one of {store.location}",
            hint="Without it nobody can read the backups. Add another first: `mcp-backup key add`. "
            "Nothing was removed.",
        )
    if identity == in_use:
        raise UsageError(
            f"key {short} is the one in use: the settings' password opens it",
            hint="Set another key's password in the settings first (`mcp-backup key add` makes "
            "one), then remove this. Nothing was removed.",
        )
    await store.delete(object_name("keys", identity))


async def _load(store: Store, name: str) -> bytes:
    data = await store.get(name)
    if digest(data) != identity_in(name):
        raise IntegrityError(
            f"{name}: its bytes do not hash to its name",
            hint="Put a copy of this key file back, or, if another password still opens the "
            "repository, add a new key and remove this one. Nothing was changed.",
        )
    return data


def _described(identity: KeyId, data: bytes) -> KeyFile:
    document = Document.parse(data, "key file")
    return KeyFile(
        identity,
        parse_datetime(document.text("created")),
        document.text("username"),
        document.text("hostname"),
    )
