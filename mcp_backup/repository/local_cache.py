"""Files that this machine keeps of a repository, to be faster: believed, or none at all.

    file = BLAKE3 of what follows, keyed (32) │ what follows

The key of the checksum is made of the repository's key and id: a file that is damaged, cut,
another repository's or made up is none. Whole or not there, and not made durable: it may be lost.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from blake3 import blake3

from mcp_backup.format.crypto import Buffer
from mcp_backup.repository.repository import Repository

_DIGEST = 32


class LocalCache:
    """Reads and writes files for one repository and one `purpose`. Blocks."""

    def __init__(self, repository: Repository, purpose: str) -> None:
        """Derive the key; nothing is looked at yet."""
        key = repository.key
        secret = key.encrypt + key.mac_k + key.mac_r + repository.config.id.encode()
        self._key = blake3(secret, derive_key_context=purpose).digest()

    def read(self, path: Path) -> memoryview | None:
        """Return what was written to `path`; None where there is nothing, or nothing of ours."""
        try:
            data = memoryview(path.read_bytes())
        except OSError:
            return None
        body = data[_DIGEST:]
        return body if data[:_DIGEST] == blake3(body, key=self._key).digest() else None

    def write(self, path: Path, parts: Sequence[Buffer]) -> None:
        """Write the parts, one after the other, in place of what was at `path`.

        Raises:
            OSError: it cannot be written; what was there still is.
        """
        checksum = blake3(key=self._key)
        for part in parts:
            checksum.update(part)
        fresh = path.with_name(f"{path.name}-tmp-{token_hex(8)}")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.writelines((checksum.digest(), *parts))
            fresh.replace(path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise
