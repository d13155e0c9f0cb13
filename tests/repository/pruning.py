"""Prunes of small repositories, and what must be true of every repository at any time."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import chain

from msgspec.structs import replace

from mcp_backup.format.blob import BlobKind, Compressor
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import BlobId, PackId, SnapshotId, digest
from mcp_backup.format.index import PackListing
from mcp_backup.format.pack import PackEntry, encode_header, encode_trailer
from mcp_backup.format.tree import dir_node, encode_tree
from mcp_backup.progress import Listener, nobody
from mcp_backup.repository.check import check
from mcp_backup.repository.locks import RESTIC, locked
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.repository.prune import Fate, PrunePlan, survey
from mcp_backup.repository.repack import execute
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.store import Store
from mcp_backup.verbs import Level, PruneReport
from tests.doubles import FrozenClock
from tests.repository.packing import (
    MTIME,
    PASSWORD,
    save_index,
    save_pack,
    save_snapshot,
    stored_file,
)

ALONE = replace(RESTIC, settle=timedelta(0))  # for those who know that nobody else is there


async def reopened(store: Store, clock: FrozenClock | None = None) -> Repository:
    """The repository as a process that has just started sees it."""
    return await open_repository(
        store, PASSWORD, now=clock or FrozenClock(), hostname="here", username="tester"
    )


async def forget(repository: Repository, *snapshots: SnapshotId) -> None:
    async with locked(repository, exclusive=True, times=ALONE):
        for snapshot in snapshots:
            await repository.forget(snapshot)


async def prune(repository: Repository, listener: Listener = nobody) -> PruneReport:
    async with (
        locked(repository, exclusive=True, times=ALONE),
        sealing_pool(repository.key, thread_bytes=1 << 60) as pool,
    ):
        return await execute(repository, await survey(repository, listener), pool, listener)


def reasons(plan: PrunePlan, *fates: Fate) -> list[str]:
    return sorted(each.reason for each in plan.of(*fates or tuple(Fate)))


async def back_up(repository: Repository, contents: Mapping[str, list[bytes]]) -> SnapshotId:
    """A snapshot of `/data` with these files, of which only what is new is stored."""
    files = [stored_file(name, chunks) for name, chunks in contents.items()]
    inner = encode_tree(files)
    root = encode_tree([dir_node("data", BlobId(digest(inner)), mode=0o755, mtime_ns=MTIME)])
    blobs = {BlobKind.DATA: list(chain(*contents.values())), BlobKind.TREE: [inner, root]}
    index = await repository.load_index(refresh=True)
    listings = []
    for kind, plaintexts in blobs.items():
        new = [p for p in dict.fromkeys(plaintexts) if (kind, BlobId(digest(p))) not in index]
        if new:
            listings.append(await save_pack(repository, kind, new))
    if listings:
        await save_index(repository, *listings)
    return await save_snapshot(repository, BlobId(digest(root)))


async def save_odd_pack(
    repository: Repository, *blobs: tuple[BlobKind, bytes, bool]
) -> PackListing:
    """A pack as we do not write it, in the store and the index: (kind, plaintext, compressed)."""
    sealer, data, entries = Sealer(repository.key), b"", []
    for kind, plain, compressed in blobs:
        sealed = sealer.seal(Compressor().frame(plain) if compressed else plain)
        plain_length = len(plain) if compressed else 0
        entries.append(PackEntry(kind, BlobId(digest(plain)), len(data), len(sealed), plain_length))
        data += sealed
    data += encode_trailer(sealer.seal(encode_header(entries)))
    listing = PackListing(PackId(digest(data)), tuple(entries))
    await repository.store.put(pack_name(listing.pack), data)
    await save_index(repository, listing)
    return listing


async def contents(repository: Repository) -> dict[str, bytes]:
    """Every file of every snapshot, by the snapshot's id and the file's path."""
    found: dict[str, bytes] = {}
    for identity, snapshot in (await repository.snapshots()).items():
        below = await _below(repository, snapshot.tree)
        found |= {f"{identity.hex()}{path}": data for path, data in below.items()}
    return found


async def _below(repository: Repository, tree: BlobId) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for node in await repository.load_tree(tree):
        if node.subtree is not None:
            below = await _below(repository, node.subtree)
            found |= {f"/{node.name}{path}": data for path, data in below.items()}
        for blob in node.content or ():
            path = f"/{node.name}"
            found[path] = found.get(path, b"") + await repository.load_blob(BlobKind.DATA, blob)
    return found


async def assert_whole(store: Store, expected: Mapping[str, bytes]) -> None:
    """Nothing is damaged or missing, and each snapshot's files are as they were."""
    repository = await reopened(store)
    assert (await check(repository, Level.DATA)).findings == ()
    assert await contents(repository) == expected
