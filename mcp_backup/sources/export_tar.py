"""Everything as one `.tar.zst`: POSIX (pax) headers, names as bytes, times to the nanosecond.

The same entries give the same bytes: nothing of the clock, the host or the order of a directory
goes in. Sizes are declared before the content comes, so content of another size is refused.
Which zstd compresses is the caller's: this room does not know the library.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from mcp_backup.errors import IntegrityError
from mcp_backup.sources import beneath
from mcp_backup.sources.globs import Globs
from mcp_backup.sources.source import Entry
from mcp_backup.sources.steady import pieces
from mcp_backup.sources.walk import Found, walk

_BLOCK = tarfile.BLOCKSIZE
_TYPES = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}

Content = Iterable[bytes | bytearray | memoryview]


class Compressor(Protocol):
    """What `ZstdCompressor` of the standard library's API offers."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes:
        """Take more input; return what output there is."""
        ...

    def flush(self) -> bytes:
        """Return the rest, and the frame's end."""
        ...


def write_tar(directory: Path, out: Path, compressor: Compressor) -> int:
    """Write the tree in `directory` as a `.tar.zst` to `out`; return the number of entries.

    Links are stored as links. Memory does not grow with the tree's bytes. A failure leaves a part
    of `out`.

    Raises:
        IntegrityError: a file changed its size while it was read.
        OSError: something cannot be read or written.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(out, "wb") as file:
            return write_entries(_entries(root), file, compressor)
    finally:
        os.close(root)


def write_entries(
    entries: Iterable[tuple[Entry, Content]], file: BinaryIO, compressor: Compressor
) -> int:
    """Write entries with their contents, parents first; return their number.

    `size` of a file's entry is the number of bytes that its content has; others have none.

    Raises:
        IntegrityError: a path that is not a plain relative one, or content of another size.
    """
    written = count = 0
    for entry, content in entries:
        for piece in _told(entry, content):
            file.write(compressor.compress(piece))
            written += len(piece)
        count += 1
    end = 2 * _BLOCK
    end += -(written + end) % tarfile.RECORDSIZE
    file.write(compressor.compress(bytes(end)))
    file.write(compressor.flush())
    return count


def _told(entry: Entry, content: Content) -> Iterator[bytes | bytearray | memoryview]:
    yield _header(entry)
    size = 0
    for piece in content:
        size += len(piece)
        yield piece
    expected = entry.size if entry.type == "file" else 0
    if size != expected:
        raise IntegrityError(
            f"{entry.path}: {size} bytes came, and {expected} were announced",
            hint="Export again; run `mcp-backup check` if it happens again.",
        )
    yield bytes(-size % _BLOCK)


def _header(entry: Entry) -> bytes:
    try:
        beneath.split(entry.path)
    except ValueError as error:
        raise IntegrityError(f"{error}", hint="It was not exported.") from error
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.type]
    info.mode = entry.mode
    info.uid, info.gid = entry.uid, entry.gid
    info.uname, info.gname = entry.user, entry.group
    info.linkname = entry.link_target
    info.size = entry.size if entry.type == "file" else 0
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    if fraction:
        info.pax_headers = {"mtime": _decimal(entry.mtime_ns)}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _decimal(nanoseconds: int) -> str:
    """Write nanoseconds as seconds, exactly; a float would not hold them."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{sign}{seconds}.{fraction:09d}"


def _entries(root: int) -> Iterator[tuple[Entry, Content]]:
    for found in walk(root, Globs(("**",)), Globs(())).found:
        yield _entry(found), _content(root, found)


def _entry(found: Found) -> Entry:
    return Entry(
        path=found.path,
        type=found.type,
        mode=found.status.st_mode & 0o7777,
        mtime_ns=found.status.st_mtime_ns,
        uid=found.status.st_uid,
        gid=found.status.st_gid,
        link_target=found.link_target,
        size=found.status.st_size,
    )


def _content(root: int, found: Found) -> Iterator[bytes]:
    if found.type != "file":
        return
    *outer, name = beneath.split(found.path)
    with beneath.directory(root, tuple(outer)) as parent:
        descriptor = beneath.open_file(parent, name)
    try:
        yield from pieces(descriptor, found.status.st_size)
    finally:
        os.close(descriptor)
