"""Identities: raw bytes inside, hexadecimal at the edges, one type per kind.

A blob is named by its plaintext, everything else by its bytes as stored; both by SHA-256, so an
id is 32 bytes, or 64 lower-case hexadecimal digits in names and JSON.

Source: restic design, "Repository Format".
"""

import re
from hashlib import sha256
from struct import Struct
from typing import NewType

from mcp_backup.errors import IntegrityError

ID_SIZE = 32

BlobId = NewType("BlobId", bytes)  # SHA-256 of the blob's plaintext
PackId = NewType("PackId", bytes)  # SHA-256 of the pack as stored
IndexId = NewType("IndexId", bytes)  # SHA-256 of the index file as stored
SnapshotId = NewType("SnapshotId", bytes)  # SHA-256 of the snapshot file as stored
LockId = NewType("LockId", bytes)  # SHA-256 of the lock file as stored
KeyId = NewType("KeyId", bytes)  # SHA-256 of the key file as stored

_ID = Struct("32s")
_HEX_ID = re.compile(r"[0-9a-f]{64}")


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the SHA-256 of `data`, 32 bytes."""
    return sha256(data).digest()


def is_id(name: str) -> bool:
    """Tell whether `name` is an id's text: exactly 64 lower-case hexadecimal digits."""
    return _HEX_ID.fullmatch(name) is not None


def unhex(text: object) -> bytes:
    """Parse an id's text into its 32 bytes.

    Raises:
        IntegrityError: `text` is not a string of 64 lower-case hexadecimal digits.
    """
    if not isinstance(text, str) or not is_id(text):
        raise IntegrityError(f"{text!r:.80} is not an id of 64 hexadecimal digits")
    return bytes.fromhex(text)


def split(ids: bytes | bytearray) -> list[BlobId]:
    """Return the blob ids, 32 bytes each, that lie end to end."""
    return [blob for (blob,) in _ID.iter_unpack(ids)]


def short(identity: bytes) -> str:
    """Return the eight digits that people read."""
    return identity.hex()[:8]
