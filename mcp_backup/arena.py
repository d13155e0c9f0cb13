"""The arena: fixed-size slots of memory shared between this process and its workers.

A gigabyte that travels from a database to a sealing process through pipes is copied four times;
through the arena, once. A slot has one owner at a time; ownership travels in frames
(`workers.py`), never in the memory itself.

    slot   │← SLACK →│←────────── SLOT_SIZE bytes of content ──────────→│
           │← sealed output, written from the slot's start while content is consumed →

Sealing adds at most 32 bytes to a chunk and chunks are at least 4 KiB, so output that begins
SLACK bytes before the content never overtakes it: a slot is sealed in place.
"""

import mmap
import os
from contextlib import suppress
from importlib import import_module
from typing import Self

SLOT_SIZE = 4 << 20  # a slot costs the event loop 1 ms, hashing and sealing it 20 ms
SLACK = 64 << 10  # 32 bytes of envelope for each of at most 1,024 chunks of 4 KiB, twice over
_STRIDE = SLACK + SLOT_SIZE


class Arena:
    """`slots` slots of shared memory behind one file descriptor, which children inherit.

    Not thread-safe in itself: whoever owns a slot may touch it, nobody else.
    """

    def __init__(self, fd: int, slots: int) -> None:
        """Map an arena that exists behind `fd`; takes ownership of `fd`."""
        self.fd = fd
        self.slots = slots
        self._map = mmap.mmap(fd, slots * _STRIDE)
        self._view = memoryview(self._map)

    @classmethod
    def create(cls, slots: int) -> Self:
        """Make a new arena of `slots` slots, zeroed, backed by memory and by no visible file."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("mcp-backup-arena")
        else:  # macOS: an unlinked file, whose pages the kernel may keep in memory
            with import_module("tempfile").TemporaryFile() as file:  # slow to load, seldom needed
                fd = os.dup(file.fileno())
        os.ftruncate(fd, slots * _STRIDE)
        return cls(fd, slots)

    def content(self, slot: int) -> memoryview:
        """Return the slot's content area, SLOT_SIZE bytes, writable."""
        start = slot * _STRIDE + SLACK
        return self._view[start : start + SLOT_SIZE]

    def sealed(self, slot: int) -> memoryview:
        """Return the whole slot, SLACK + SLOT_SIZE bytes, writable: where sealed output goes."""
        start = slot * _STRIDE
        return self._view[start : start + _STRIDE]

    def close(self) -> None:
        """Close; the memory goes with the last view of it, which a traceback may still hold."""
        self._view.release()
        with suppress(BufferError):
            self._map.close()
        os.close(self.fd)
