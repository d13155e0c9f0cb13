"""A repository, open: snapshots, blobs and the index, behind ids.

Start reading here: `open_repository` says in which order things are found out, `Repository` what
can be asked for afterwards.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import anyio
from anyio import to_thread

from mcp_backup.errors import (
    IntegrityError,
    ObjectMissing,
    RepositoryExists,
    RepositoryMissing,
    UnsupportedFormat,
)
from mcp_backup.format.blob import BlobKind, Decompressor
from mcp_backup.format.config import VERSION, Config, decode_config, encode_config, new_config
from mcp_backup.format.crypto import Buffer, MasterKey, Sealer
from mcp_backup.format.ids import BlobId, IndexId, KeyId, PackId, SnapshotId, digest
from mcp_backup.format.index import PackListing, decode_index
from mcp_backup.format.key import generate_master_key
from mcp_backup.format.snapshot import Snapshot, decode_snapshot, encode_snapshot
from mcp_backup.format.tree import Node, decode_tree
from mcp_backup.format.unpacked import LIMIT, decode_unpacked, encode_unpacked
from mcp_backup.repository.blob_index import BlobIndex, Location, Recalled, packed
from mcp_backup.repository.concurrency import SMALL, aside, for_each
from mcp_backup.repository.keys import add_key, find_key, work_for
from mcp_backup.repository.objects import (
    DAMAGED,
    Directory,
    about,
    identity_in,
    object_name,
    pack_name,
)
from mcp_backup.store.store import Store

_DOCUMENT = 16 << 20  # bytes of a snapshot or lock: one names paths, and little else
_PRUNES_OUTRUN = 3  # times that index files may vanish between listing and reading them


async def create_repository(  # noqa: PLR0913 - clock, host and chance are arguments
    store: Store,
    password: str,
    *,
    random: Callable[[int], bytes],
    now: Callable[[], datetime],
    hostname: str,
    username: str,
    generated_password: bool,
) -> "Repository":
    """Make a repository in a store whose directories exist (`create_store`), and open it.

    Key file first, config last: before that, it is no repository. What a cancel or a crash
    leaves before is finished by another call with the same password.

    Raises:
        RepositoryExists: there is one, or the remains of one that had snapshots or packs.
        WrongPassword: a key of an unfinished one is there, and has another password.
    """
    await _refuse_existing(store)
    if await store.objects("keys/"):
        key_id, master = await find_key(store, password)
    else:
        master = generate_master_key(random)
        key_id = await add_key(
            store,
            master,
            password,
            created=now(),
            username=username,
            hostname=hostname,
            work=work_for(generated_password=generated_password),
            random=random,
        )
    config = new_config(random)
    await store.put("config", Sealer(master).seal(encode_config(config)))
    return Repository(store, config, master, now, hostname, username, key_id)


async def _refuse_existing(store: Store) -> None:
    try:
        await store.size("config")
    except ObjectMissing:
        for prefix in ("snapshots/", "index/", "data/"):
            if await store.objects(prefix):
                raise RepositoryExists(store.location) from None
    else:
        raise RepositoryExists(store.location)


async def open_repository(
    store: Store, password: str, *, now: Callable[[], datetime], hostname: str, username: str
) -> "Repository":
    """Open a repository: its config is there, a key opens, the config is one we can work with.

    Raises:
        RepositoryMissing: no config, and nothing else of a repository either.
        WrongPassword: the password opens no key.
        UnsupportedFormat: a version other than 2.
        IntegrityError: the config or a key file is damaged, or the config is gone.
    """
    try:
        sealed = await store.get("config")
    except ObjectMissing:
        raise await _without_config(store) from None
    if not sealed:
        raise IntegrityError("config: 0 bytes", hint=_CONFIG_GONE)
    key_id, master = await find_key(store, password)
    with about("config", _CONFIG_GONE):
        config = decode_config(Sealer(master).unseal(sealed))
    if config.version != VERSION:
        raise UnsupportedFormat(
            f"{store.location} is a repository of version {config.version}, wanted {VERSION}",
            hint="Run `restic migrate upgrade_repo_v2` on it once. Nothing was changed.",
        )
    return Repository(store, config, master, now, hostname, username, key_id)


_CONFIG_GONE = (
    "Put `config` back from a copy of the repository; nothing else can replace it. "
    "Nothing was changed."
)


async def _without_config(store: Store) -> IntegrityError | RepositoryMissing:
    if await store.objects("snapshots/"):
        return IntegrityError(f"config is missing from {store.location}", hint=_CONFIG_GONE)
    return RepositoryMissing(store.location)


@dataclass(eq=False)
class Repository:
    """An open repository. One event loop's; calls may run concurrently.

    `exclusive` tells whether we hold an exclusive lock (`locks.locked` sets it); deleting asks
    for one. Snapshots and the index are kept in memory once loaded.
    """

    store: Store
    config: Config
    key: MasterKey
    now: Callable[[], datetime]
    hostname: str
    username: str
    key_id: KeyId | None = None  # the key file that the password opened
    exclusive: bool = field(default=False, init=False)
    _sealer: Sealer = field(init=False)  # for small objects, which are unsealed without a thread
    _snapshots: dict[SnapshotId, Snapshot] = field(default_factory=dict, init=False)
    _listing: tuple[set[str], dict[SnapshotId, Snapshot]] = field(default=(set(), {}), init=False)
    _index: BlobIndex | None = field(default=None, init=False)
    _indexed: set[IndexId] = field(default_factory=set, init=False)  # index files in `_index`
    _index_current: bool = field(default=False, init=False)  # no prune can have come in between
    _loading: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    def __post_init__(self) -> None:
        """Set up the sealer."""
        self._sealer = Sealer(self.key)

    async def load_unpacked(self, directory: Directory, identity: bytes) -> bytes:
        """Return the JSON of a snapshot, index or lock.

        Raises:
            ObjectMissing: there is none of that id.
            IntegrityError: its bytes do not hash to its id, or are not what we sealed.
        """
        name = object_name(directory, identity)
        data = await self.store.get(name)
        if len(data) < SMALL:
            return _unsealed(self._sealer, name, data)
        return await to_thread.run_sync(_unsealed, Sealer(self.key), name, data)

    def seal_unpacked(self, document: bytes) -> tuple[bytes, bytes]:
        """Return the id and the sealed bytes of a snapshot, index or lock to be."""
        sealed = Sealer(self.key).seal(encode_unpacked(document))
        return digest(sealed), sealed

    async def save_unpacked(self, directory: Directory, document: bytes) -> bytes:
        """Store the JSON of a snapshot, index or lock; return its id. A cancel: whole or none."""
        identity, sealed = await aside(len(document), lambda: self.seal_unpacked(document))
        await self.store.put(object_name(directory, identity), sealed)
        return identity

    async def snapshots(
        self, damaged: dict[SnapshotId, IntegrityError] | None = None
    ) -> dict[SnapshotId, Snapshot]:
        """Return all snapshots by id. Called before `load_index`, or blobs may seem missing.

        Unreadable ones are put into `damaged` where it is given; whoever deletes by what the
        others refer to must not give it.

        Raises:
            IntegrityError: one is unreadable; the message names it.
        """

        async def load(identity: SnapshotId) -> None:
            try:
                await self._load_snapshot(identity)
            except IntegrityError as error:
                if damaged is None:
                    raise
                damaged[identity] = error

        names = set(await self.store.names("snapshots/"))
        before, known = self._listing
        if names == before:
            return known
        new = {SnapshotId(identity_in(name)) for name in names - before}
        found = dict(known)
        for name in before - names:
            del found[SnapshotId(identity_in(name))]
        for identity in self._snapshots.keys() - found.keys() - new:
            del self._snapshots[identity]
        await for_each(load, new - self._snapshots.keys())
        found |= {identity: self._snapshots[identity] for identity in new & self._snapshots.keys()}
        if len(found) == len(names):
            self._listing = names, found
        return found

    def remember(self, snapshots: dict[SnapshotId, Snapshot]) -> None:
        """Take snapshots for read, which somebody has read before, under these ids."""
        self._snapshots.update(snapshots)

    async def _load_snapshot(self, identity: SnapshotId) -> None:
        try:
            document = await self.load_unpacked("snapshots", identity)
        except ObjectMissing:
            return  # forgotten since it was listed
        with about(object_name("snapshots", identity)):
            self._snapshots[identity] = decode_snapshot(document)

    async def add_snapshot(self, snapshot: Snapshot) -> SnapshotId:
        """Store a snapshot: the commit. Its blobs are stored and indexed. Cancel: whole or none."""
        identity = SnapshotId(await self.save_unpacked("snapshots", encode_snapshot(snapshot)))
        self._snapshots[identity] = snapshot
        return identity

    async def forget(self, identity: SnapshotId) -> None:
        """Delete a snapshot, under an exclusive lock. What only it referred to is for `prune`."""
        assert self.exclusive, "forgetting without an exclusive lock"
        await self.store.delete(object_name("snapshots", identity))
        self._snapshots.pop(identity, None)

    async def load_index(self, *, refresh: bool = False) -> BlobIndex:
        """Return the index: from memory, unless `refresh` or a lock was taken since it was loaded.

        Index files are read once. When some have vanished, a new index is made of those left.

        Raises:
            IntegrityError: an index file is unreadable; the message names it.
        """
        async with self._loading:
            if self._index is not None and self._index_current and not refresh:
                return self._index
            for _ in range(_PRUNES_OUTRUN):
                with suppress(ObjectMissing):  # pruned since it was listed; its successor is there
                    return await self._loaded_index()
            return await self._loaded_index()

    @property
    def index_known(self) -> Recalled | None:
        """The index in memory and the index files that it was made of; None before it is loaded."""
        return None if self._index is None else (self._index, self._indexed)

    async def recall_index(self, kept: Callable[[], Recalled | None]) -> None:
        """Take the index that `kept` returns, in a thread; who asks for one meanwhile waits."""
        async with self._loading:
            if self._index is None and (found := await to_thread.run_sync(kept)):
                self._index, self._indexed, self._index_current = found[0], set(found[1]), False

    async def forget_index(self) -> None:
        """Have the next `load_index` read every index file."""
        async with self._loading:
            self._index, self._indexed, self._index_current = None, set(), False

    def doubt_index(self) -> None:
        """Have the next `load_index` look for changes; called when a lock was just taken."""
        self._index_current = False

    async def _loaded_index(self) -> BlobIndex:
        there = {IndexId(identity_in(name)) for name in await self.store.names("index/")}
        if self._index is None or self._indexed - there:
            index, indexed = BlobIndex(), set[IndexId]()
        else:
            index, indexed = self._index, self._indexed
        for identity in sorted(there - indexed):
            await self._load_index_file(identity, index)
            indexed.add(identity)
        self._index, self._indexed, self._index_current = index, indexed, True
        return index

    async def _load_index_file(self, identity: IndexId, index: BlobIndex) -> None:
        listings = await self.load_listings(identity)
        for pack, listing in listings:
            index.add_packed(pack, listing)

    async def load_listings(self, identity: IndexId) -> list[tuple[PackId, bytes]]:
        """Return one index file as `BlobIndex.add_packed` takes it.

        Raises:
            IntegrityError: it is unreadable; the message names it.
        """
        name = object_name("index", identity)
        data = await self.store.get(name)

        def decode() -> list[tuple[PackId, bytes]]:
            with about(name):
                listings = decode_index(_unsealed(Sealer(self.key), name, data))
                return [(listing.pack, packed(listing.entries)) for listing in listings]

        return await aside(len(data), decode)

    def index_written(self, identity: bytes, listings: Iterable[PackListing]) -> None:
        """Take an index file that was just stored into the index in memory, without reading it."""
        if self._index is not None:
            for listing in listings:
                self._index.add(listing.pack, listing.entries)
            self._indexed.add(IndexId(identity))

    async def load_blob(self, kind: BlobKind, identity: BlobId) -> bytes:
        """Return a blob's plaintext, from whichever pack has it intact.

        Raises:
            IntegrityError: it is in no index, or damaged wherever it lies.
        """
        problem: IntegrityError | ObjectMissing | None = None
        for refresh in (False, True):  # a prune may have moved it
            index = await self.load_index(refresh=refresh)
            for location in index.find_all(kind, identity):
                try:
                    return await self.load_at(kind, identity, location)
                except (IntegrityError, ObjectMissing) as error:
                    problem = problem or error
            if isinstance(problem, IntegrityError):
                break
        raise problem or IntegrityError(
            f"{kind.word} blob {identity.hex()} is in no index", hint=DAMAGED
        )

    async def load_at(self, kind: BlobKind, identity: BlobId, location: Location) -> bytes:
        """Return a blob's plaintext from one of its places.

        Raises:
            ObjectMissing: the pack is gone.
            IntegrityError: what lies there is not that blob.
        """
        name = pack_name(location.pack)
        with about(name):
            sealed = await self.store.get(name, location.offset, location.length)

        def unseal(sealer: Sealer) -> bytes:
            with about(f"{name}: {kind.word} blob {identity.hex()}"):
                return unseal_blob(sealer, identity, sealed, location.plain_length)

        if len(sealed) < SMALL:
            return unseal(self._sealer)
        return await to_thread.run_sync(unseal, Sealer(self.key))

    async def load_tree(self, identity: BlobId) -> list[Node]:
        """Return a directory's nodes, in stored order, whose names nobody judged yet.

        Raises:
            IntegrityError: the tree is missing, damaged or not a tree.
        """
        data = await self.load_blob(BlobKind.TREE, identity)

        def decode() -> list[Node]:
            with about(f"tree {identity.hex()}"):
                return decode_tree(data)

        return await aside(len(data), decode)


def unseal_blob(sealer: Sealer, identity: BlobId, sealed: Buffer, plain_length: int) -> bytes:
    """Return the plaintext of a sealed blob, decompressed where `plain_length` is not 0.

    Raises:
        IntegrityError: it does not unseal, decompress, or hash to its id.
    """
    plaintext = sealer.unseal(sealed)
    if plain_length:
        plaintext = Decompressor().decompress(plaintext, plain_length)
    if digest(plaintext) != identity:
        raise IntegrityError(f"{len(plaintext)} bytes do not hash to the blob's id")
    return plaintext


def _unsealed(sealer: Sealer, name: str, data: bytes) -> bytes:
    with about(name):
        if digest(data) != identity_in(name):
            raise IntegrityError(f"{len(data)} bytes do not hash to its name")
        limit = LIMIT if name.startswith("index/") else _DOCUMENT
        return decode_unpacked(sealer.unseal(data), limit)
