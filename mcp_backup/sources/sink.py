"""The sink: where a capture's bytes go, in the worker process that reads the source.

Bytes are collected in arena slots that the parent hands out; a full slot is hashed here, once,
and handed back with its segments' digests. The parent cuts, compresses and stores; it never sees
the source.

    child → parent   entry {...} · filled {slot, offset, length} + 32 bytes per started 64 KiB ·
                     file_end {size, digest}
    parent → child   give {slot}

A file's bytes arrive in order, except that an image's first slot is kept until its end: SQLite's
backup writes the first page last, so that a copy cut short is never mistaken for a database.
"""

import errno
import os

from mcp_backup import page_cache
from mcp_backup.arena import SLOT_SIZE, Arena
from mcp_backup.channel import Channel
from mcp_backup.record import asdict
from mcp_backup.sources import digest
from mcp_backup.sources.source import Entry, FileEvidence

_ZEROS = bytes(64 << 10)


class Sink:
    """Takes one capture: for each file an entry, its bytes, its end; other entries alone.

    Blocks while the parent has no free slot to give. `notes` are the sentences noted so far, for
    the evidence.
    """

    def __init__(self, channel: Channel, arena: Arena) -> None:
        """Write to slots of `arena` as `channel` hands them out."""
        self.notes: list[str] = []
        self._channel = channel
        self._arena = arena
        self._path = ""  # of the file being written, in the capture
        self._keeps_first = False
        self._position = 0  # of the next byte in the file
        self._slot = -1  # the slot being filled; -1: none yet
        self._content = memoryview(b"")
        self._used = 0  # bytes in the slot being filled
        self._first: tuple[int, int] | None = None  # an image's first slot and its length
        self._segments = bytearray()

    def entry(self, entry: Entry) -> None:
        """Announce the next entry. For files, bytes and `end_file` must follow."""
        self._channel.send("entry", **asdict(entry))
        if entry.type == "file":
            self._path, self._keeps_first = entry.path, entry.layout == "image"
            self._position = self._used = 0
            self._segments = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`, of any length, to the file."""
        view = memoryview(data)
        if len(view) <= SLOT_SIZE - self._used:
            self._append(view)
            return
        start = 0
        while start < len(view):
            room = SLOT_SIZE - self._used
            self._append(view[start : start + room])
            start += room

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data` at `offset` in an image.

        Offsets ascend; what is skipped becomes zeros. Only the first SLOT_SIZE bytes may be
        written again, and count as written until the file ends.
        """
        end = self._used + len(data)
        if offset == self._position and self._used > 0 and end < SLOT_SIZE:  # nearly every page
            self._content[self._used : end] = data
            self._used = end
            self._position = offset + len(data)
            return
        if offset > self._position:
            self._skip(offset - self._position)
        if offset == self._position:
            self.write(data)
        else:
            self._overwrite(offset, memoryview(data))

    def write_file(self, file: int) -> None:
        """Append all bytes of the open file `file`, read straight into the slots.

        Raises:
            OSError: it ends before the end that it had at first, or cannot be read.
        """
        size, start = os.fstat(file).st_size, 0
        while start < size:
            got = page_cache.read_into(file, self._room()[: size - start], start)
            if not got:
                raise OSError(errno.EIO, "the file ends before its end")
            self._count(got)
            start += got

    def end_file(self, original: str) -> FileEvidence:
        """Send what is left of the file and its end; return what was seen of it.

        `original` is the absolute path that was read.
        """
        if self._used:
            self._finish_slot()
        if self._first is not None:
            slot, length = self._first
            segments = self._send(slot, 0, length)
            self._segments[: len(segments)] = segments
            self._first = None
        whole = digest.of_segments(bytes(self._segments))
        self._channel.send("file_end", size=self._position, digest=whole)
        return FileEvidence(self._path, original, self._position, whole)

    def note(self, sentence: str) -> None:
        """Remember something a person should read: what was skipped, and why."""
        self.notes.append(sentence)

    def _append(self, view: memoryview) -> None:
        self._room()[: len(view)] = view
        self._count(len(view))

    def _room(self) -> memoryview:
        """Return what is free of the slot being filled: a byte at least."""
        if self._slot < 0:
            self._slot = self._free_slot()
            self._content = self._arena.content(self._slot)
        return self._content[self._used :]

    def _count(self, length: int) -> None:
        """Take the next `length` bytes of the slot for written."""
        self._used += length
        self._position += length
        if self._used == SLOT_SIZE:
            self._finish_slot()

    def _skip(self, length: int) -> None:
        while length > 0:
            self.write(_ZEROS[: min(length, len(_ZEROS))])
            length -= len(_ZEROS)

    def _overwrite(self, offset: int, view: memoryview) -> None:
        if not self._keeps_first or offset + len(view) > min(SLOT_SIZE, self._position):
            raise ValueError(f"offset {offset} of {self._path} has been handed over already")
        slot = self._slot if self._first is None else self._first[0]
        self._arena.content(slot)[offset : offset + len(view)] = view

    def _finish_slot(self) -> None:
        slot, length, offset = self._slot, self._used, self._position - self._used
        self._slot, self._used, self._content = -1, 0, memoryview(b"")
        if self._keeps_first and offset == 0:
            self._first = slot, length
            self._segments += bytes(32 * -(-length // digest.SEGMENT))
        else:
            self._segments += self._send(slot, offset, length)

    def _send(self, slot: int, offset: int, length: int) -> bytes:
        segments = digest.segments(self._arena.content(slot)[:length])
        self._channel.send("filled", segments, slot=slot, offset=offset, length=length)
        return segments

    def _free_slot(self) -> int:
        frame = self._channel.receive()
        if frame is None:
            raise SystemExit(0)  # the parent has gone, or does not want the rest
        return int(frame.fields["slot"])
