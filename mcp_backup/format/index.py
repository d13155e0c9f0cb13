"""Index files: which pack holds which blob. All of them together are the index.

    {"packs":[{"id":"…","blobs":[{"id":"…","type":"data","offset":0,"length":99,
                                  "uncompressed_length":4096}, …]}, …]}

All blobs of a pack are in one index file; a file has at most about MAX_BLOBS of them.

Source: restic design, "Indexing".
"""

from collections.abc import Iterable, Sequence
from operator import add
from typing import Any

from msgspec import Struct

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import MAX_BLOB, BlobKind
from mcp_backup.format.crypto import OVERHEAD
from mcp_backup.format.document import MANY, Document, identities
from mcp_backup.format.ids import PackId
from mcp_backup.format.pack import MAX_LENGTH, PackEntry

MAX_BLOBS = 50_000  # restic begins another index file then; readers accept any number

_KINDS = {kind.word: kind for kind in BlobKind}
_WORDS = tuple(_KINDS)


class PackListing(Struct, frozen=True):
    """One pack and all the blobs in it."""

    pack: PackId
    entries: tuple[PackEntry, ...]


def encode_index(packs: Iterable[PackListing]) -> bytes:
    """Return the JSON of one index file that lists `packs`."""
    return b'{"packs":[' + b",".join(map(_encode_listing, packs)) + b"]}"


def _encode_listing(listing: PackListing) -> bytes:
    """Return the JSON of one pack: as bytes at once, since a million entries as text are large."""
    blobs = ",".join(
        [
            f'{{"id":"{identity.hex()}","type":"{_WORDS[kind]}","offset":{offset},"length":{length}'
            + (f',"uncompressed_length":{plain_length}}}' if plain_length else "}")
            for kind, identity, offset, length, plain_length in listing.entries
        ]
    )
    return f'{{"id":"{listing.pack.hex()}","blobs":[{blobs}]}}'.encode()


def decode_index(document: bytes) -> list[PackListing]:
    """Parse the JSON of one index file.

    Raises:
        IntegrityError: not an index.
    """
    return [
        PackListing(PackId(pack.identity("id")), tuple(_decode_entries(pack.members.get("blobs"))))
        for pack in Document.parse(document, "index", MANY).objects("packs")
    ]


def _decode_entries(blobs: Any) -> Iterable[PackEntry]:
    """Parse the blobs of one pack, column by column: there are a million of them in 16 GB."""
    if blobs is None or blobs == []:
        return ()
    if not isinstance(blobs, list):
        raise IntegrityError("index: a pack's blobs are not a list")
    try:
        ids = identities([blob["id"] for blob in blobs], "index: a pack's blobs")
        kinds = [_KINDS[blob["type"]] for blob in blobs]
        offsets = [blob["offset"] for blob in blobs]
        lengths = [blob["length"] for blob in blobs]
        plain_lengths = [blob.get("uncompressed_length", 0) for blob in blobs]
    except (TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"index: not a list of blobs: {error!r:.80}") from error
    for column in (offsets, lengths, plain_lengths):
        if not set(map(type, column)) <= {int} or min(column) < 0:
            raise IntegrityError("index: a blob's offset or length is not a number of bytes")
    if max(map(add, offsets, lengths)) > MAX_LENGTH:
        raise IntegrityError("index: a blob lies beyond what a pack can hold")
    if max(max(lengths), max(plain_lengths)) > MAX_BLOB[BlobKind.DATA]:
        _refuse_large(kinds, lengths, plain_lengths)
    return map(PackEntry._make, zip(kinds, ids, offsets, lengths, plain_lengths, strict=True))


def _refuse_large(
    kinds: Sequence[BlobKind], lengths: Sequence[int], plain_lengths: Sequence[int]
) -> None:
    for kind, length, plain_length in zip(kinds, lengths, plain_lengths, strict=True):
        size = max(length - OVERHEAD, plain_length)
        if size > MAX_BLOB[kind]:
            raise IntegrityError(f"index: a {kind.word} blob of {size} bytes")
