"""Small repositories, built object by object, so that tests know every byte of them."""

import os
from collections.abc import Sequence
from itertools import accumulate, chain

from mcp_backup.format.blob import BlobKind, Compressor
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import BlobId, PackId, SnapshotId, digest
from mcp_backup.format.index import PackListing, encode_index
from mcp_backup.format.pack import PackEntry, encode_header, encode_trailer
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.tree import Node, dir_node, encode_tree, file_node
from mcp_backup.repository.objects import pack_name
from mcp_backup.repository.repository import Repository, create_repository
from mcp_backup.store.store import Store
from tests.doubles import FrozenClock

PASSWORD = "correct horse"  # noqa: S105 - of repositories that tests make
MTIME = 1_700_000_000_000_000_000  # nanoseconds


async def new_repository(
    store: Store, clock: FrozenClock | None = None, hostname: str = "here"
) -> Repository:
    return await create_repository(
        store,
        PASSWORD,
        random=os.urandom,
        now=clock or FrozenClock(),
        hostname=hostname,
        username="tester",
        generated_password=True,
    )


def make_pack(
    repository: Repository, kind: BlobKind, plaintexts: Sequence[bytes]
) -> tuple[bytes, PackListing]:
    """A pack's bytes and its listing. Blobs that do not shrink are stored uncompressed."""
    sealer, sealed, plain_lengths = Sealer(repository.key), [], []
    for plain in plaintexts:
        packed = (
            Compressor().frame(plain) if kind is BlobKind.TREE else Compressor().compress(plain)
        )
        sealed.append(sealer.seal(plain if packed is None else packed))
        plain_lengths.append(0 if packed is None else len(plain))
    starts = accumulate(map(len, sealed), initial=0)
    entries = [
        PackEntry(kind, BlobId(digest(plain)), start, len(data), plain_length)
        for plain, data, start, plain_length in zip(
            plaintexts, sealed, starts, plain_lengths, strict=False
        )
    ]
    data = b"".join(sealed) + encode_trailer(sealer.seal(encode_header(entries)))
    return data, PackListing(PackId(digest(data)), tuple(entries))


async def save_pack(
    repository: Repository, kind: BlobKind, plaintexts: Sequence[bytes]
) -> PackListing:
    data, listing = make_pack(repository, kind, plaintexts)
    await repository.store.put(pack_name(listing.pack), data)
    return listing


async def save_index(repository: Repository, *listings: PackListing) -> bytes:
    return await repository.save_unpacked("index", encode_index(listings))


async def save_snapshot(repository: Repository, tree: BlobId) -> SnapshotId:
    return await repository.add_snapshot(
        Snapshot(time=repository.now(), tree=tree, paths=("/data",), hostname="here")
    )


async def save_backup(repository: Repository, contents: dict[str, list[bytes]]) -> SnapshotId:
    """A snapshot of `/data` with these files, each given as its chunks; one pack of each kind."""
    data = await save_pack(repository, BlobKind.DATA, list(chain(*contents.values())))
    files = [stored_file(name, chunks) for name, chunks in contents.items()]
    inner = encode_tree(files)
    root = encode_tree([dir_node("data", BlobId(digest(inner)), mode=0o755, mtime_ns=MTIME)])
    trees = await save_pack(repository, BlobKind.TREE, [inner, root])
    await save_index(repository, data, trees)
    return await save_snapshot(repository, BlobId(digest(root)))


def stored_file(name: str, chunks: Sequence[bytes]) -> Node:
    content = [BlobId(digest(chunk)) for chunk in chunks]
    return file_node(name, content, sum(map(len, chunks)), mode=0o644, mtime_ns=MTIME)
