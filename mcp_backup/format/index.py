"""Index files: which pack holds which blob. All of them together are the index.

    {"packs":[{"id":"…","blobs":[{"id":"…","type":"data","offset":0,"length":99,
                                  "uncompressed_length":4096}, …]}, …]}

All blobs of a pack are in one index file; a file has at most about MAX_BLOBS of them.

Source: restic design, "Indexing".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.document import Document
from mcp_backup.format.ids import BlobId, PackId
from mcp_backup.format.pack import MAX_LENGTH, PackEntry

MAX_BLOBS = 50_000  # restic begins another index file then; readers accept any number

_KINDS = {kind.word: kind for kind in BlobKind}


@dataclass(frozen=True, slots=True)
class PackListing:
    """One pack and all the blobs in it."""

    pack: PackId
    entries: tuple[PackEntry, ...]


def encode_index(packs: Iterable[PackListing]) -> bytes:
    """Return the JSON of one index file that lists `packs`."""
    listed = ",".join(
        f'{{"id":"{listing.pack.hex()}","blobs":[{",".join(map(_encode_entry, listing.entries))}]}}'
        for listing in packs
    )
    return f'{{"packs":[{listed}]}}'.encode()


def _encode_entry(entry: PackEntry) -> str:
    kind, identity, offset, length, plain_length = entry
    plain = f',"uncompressed_length":{plain_length}' if plain_length else ""
    where = f'"offset":{offset},"length":{length}{plain}'
    return f'{{"id":"{identity.hex()}","type":"{kind.word}",{where}}}'


def decode_index(document: bytes) -> list[PackListing]:
    """Parse the JSON of one index file.

    Raises:
        IntegrityError: not an index.
    """
    return [
        PackListing(
            PackId(pack.identity("id")),
            tuple(_decode_entry(blob) for blob in pack.objects("blobs")),
        )
        for pack in Document.parse(document, "index").objects("packs")
    ]


def _decode_entry(blob: Document) -> PackEntry:
    kind = _KINDS.get(blob.text("type"))
    if kind is None:
        raise IntegrityError(f"index: unknown blob type {blob.text('type')!r:.40}")
    offset, length = blob.integer("offset"), blob.integer("length")
    if offset + length > MAX_LENGTH:
        raise IntegrityError(f"index: a blob of {length} bytes at {offset}")
    identity = BlobId(blob.identity("id"))
    return PackEntry(kind, identity, offset, length, blob.integer("uncompressed_length"))
