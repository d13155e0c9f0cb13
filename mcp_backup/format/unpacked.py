"""Documents outside packs (index files, snapshots, locks), before they are sealed.

    0x02 │ zstd frame of the JSON        as restic and we write them
    { … }  or  [ … ]                     raw JSON, which restic also reads

Source: restic design, "Unpacked Data Format".
"""

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.zstd import ZstdCompressor, inflate

LIMIT = 1 << 30  # bytes; an index file of a million blobs is 150 MB

_COMPRESSED = b"\x02"
_LEVEL = 3


def encode_unpacked(json: bytes) -> bytes:
    """Return the plaintext to seal for a JSON document."""
    if not json.startswith((b"{", b"[")):
        raise ValueError("an unpacked document is JSON")
    return _COMPRESSED + ZstdCompressor(level=_LEVEL).compress(json)


def decode_unpacked(plain: bytes, limit: int = LIMIT) -> bytes:
    """Return the JSON document in an unsealed plaintext, at most `limit` bytes.

    Raises:
        UnsupportedFormat: an encoding we do not know.
        IntegrityError: damaged, or longer than `limit`.
    """
    first = plain[:1]
    if first == _COMPRESSED:
        return inflate(memoryview(plain)[1:], limit)
    if first not in (b"", b"{", b"["):
        raise UnsupportedFormat(
            f"document in encoding {first.hex()}, and this program reads 02 and raw JSON",
            hint="Upgrade mcp-backup, or use restic. Nothing was changed.",
        )
    if len(plain) > limit:
        raise IntegrityError(f"document of {len(plain)} bytes, at most {limit} are read")
    return plain
