"""Pack files: sealed blobs end to end, then a sealed header, then the header's length.

    sealed blob 1 │ … │ sealed blob n │ sealed header │ uint32 LE, bytes of the sealed header

    header = n entries, in the blobs' order:
             kind u8 │ sealed length u32 LE │                       blob id (32)    37 bytes
             kind u8 │ sealed length u32 LE │ plain length u32 LE │ blob id (32)    41 bytes

The kind is 0 for data, 1 for trees; 2 and 3 are the same, compressed, and have a plain length.
Offsets are not stored: they are the running sum. A pack holds blobs of one kind.

Source: restic design, "Pack Format".
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.crypto import OVERHEAD, Buffer
from mcp_backup.format.ids import BlobId

TARGET_SIZE = 8 << 20  # bytes; half of restic's: what a worker holds in memory before it is stored
MAX_HEADER = 16 << 20  # bytes, sealed; restic reads no more
MAX_LENGTH = (1 << 32) - 1  # of a blob, plain or sealed, and of an offset in a pack

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_TRAILER = struct.Struct("<I")
_COMPRESSED_KIND = 2  # added to the kind


class PackEntry(NamedTuple):
    """One blob in a pack. A tuple, since an index makes a million of them."""

    kind: BlobKind
    id: BlobId
    offset: int  # bytes from the pack's start
    length: int  # bytes, sealed
    plain_length: int  # bytes after decompression; 0 where the blob is stored uncompressed


def encode_header(entries: Sequence[PackEntry]) -> bytes:
    """Return the plaintext header of a pack that holds `entries`, without gaps, from offset 0."""
    parts, end = list[bytes](), 0
    plain, compressed = _PLAIN.pack, _COMPRESSED.pack
    for kind, blob, offset, length, plain_length in entries:
        if offset != end or length < OVERHEAD:
            raise ValueError(f"pack entry at {offset}, {length} long, after {end}")
        if plain_length:
            parts.append(compressed(kind + _COMPRESSED_KIND, length, plain_length, blob))
        else:
            parts.append(plain(kind, length, blob))
        end += length
    header = b"".join(parts)
    if not 0 < len(header) <= MAX_HEADER - OVERHEAD:
        raise ValueError(f"a pack header of {len(header)} bytes")
    return header


def decode_header(header: bytes) -> list[PackEntry]:
    """Parse a plaintext pack header: entries of 37 or 41 bytes, in pack order.

    Raises:
        IntegrityError: no entry, an unknown kind, an impossible length, or an end inside an entry.
    """
    if not 0 < len(header) <= MAX_HEADER - OVERHEAD:
        raise IntegrityError(f"pack header: {len(header)} bytes")
    entries: list[PackEntry] = []
    position = offset = 0
    try:
        while position < len(header):
            entry, size = _decode_entry(header, position, offset)
            if entry.length < OVERHEAD or offset > MAX_LENGTH:
                raise IntegrityError(
                    f"pack header: entry {len(entries)} is {entry.length} bytes at {offset}"
                )
            entries.append(entry)
            position += size
            offset += entry.length
    except struct.error:
        raise IntegrityError(
            f"pack header: {len(header)} bytes end inside entry {len(entries)}"
        ) from None
    return entries


def _decode_entry(header: bytes, position: int, offset: int) -> tuple[PackEntry, int]:
    kind = header[position]
    if kind in (BlobKind.DATA, BlobKind.TREE):
        _, length, identity = _PLAIN.unpack_from(header, position)
        return PackEntry(BlobKind(kind), identity, offset, length, 0), _PLAIN.size
    if kind - _COMPRESSED_KIND in (BlobKind.DATA, BlobKind.TREE):
        _, length, plain, identity = _COMPRESSED.unpack_from(header, position)
        if not plain:
            raise IntegrityError("pack header: a compressed blob of 0 bytes")
        entry = PackEntry(BlobKind(kind - _COMPRESSED_KIND), identity, offset, length, plain)
        return entry, _COMPRESSED.size
    raise IntegrityError(f"pack header: unknown blob kind {kind}")


def header_size(entries: Iterable[PackEntry]) -> int:
    """Return the bytes that follow the last blob: the sealed header and its length field."""
    sizes = (_COMPRESSED.size if entry.plain_length else _PLAIN.size for entry in entries)
    return sum(sizes) + OVERHEAD + _TRAILER.size


def pack_size(entries: Sequence[PackEntry]) -> int:
    """Return the size in bytes of the pack that holds `entries`; restic insists on equality."""
    return sum(entry.length for entry in entries) + header_size(entries)


def encode_trailer(sealed_header: bytes) -> bytes:
    """Return what follows the last blob: the sealed header, then its length."""
    return sealed_header + _TRAILER.pack(len(sealed_header))


def sealed_header_length(tail: Buffer, size: int) -> int:
    """Return the length of the sealed header of a pack of `size` bytes that ends with `tail`.

    Raises:
        IntegrityError: the pack is too small for one, or says something impossible.
    """
    if len(tail) < _TRAILER.size:
        raise IntegrityError(f"pack: {size} bytes have no header")
    (length,) = _TRAILER.unpack(tail[-_TRAILER.size :])
    room = min(MAX_HEADER, size - _TRAILER.size - OVERHEAD)
    if not OVERHEAD + _PLAIN.size <= length <= room:
        raise IntegrityError(f"pack: a header of {length} bytes in a pack of {size}")
    return int(length)
