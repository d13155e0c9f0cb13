"""Hash, compress, seal and unseal whole slots of the arena: the work that keeps a core busy.

Runs in worker processes (AES and Poly1305 hold the interpreter lock, so threads would wait for
each other) and, for the first few mebibytes of a run, in a thread of the parent. Nothing here
knows packs, indexes or stores; it turns chunks into blobs and blobs into bytes of a file.

The frames of the child, one answer to each, in order:

    key      payload: encrypt 32 │ k 16 │ r 16; level           → ready
    hash     slot; payload: uint32 (start, length) a chunk      → hashed; payload: 32 bytes a chunk
    seal     slot; payload: uint32 (start, length) a chunk      → sealed; payload: uint32 (length,
                                                                  plain length or 0) a blob
    both     slot; payload: uint32 (start, length) a chunk      → sealed; payload: what hashed has,
                                                                  then what sealed has
    open     file, path                                         → opened
    unseal   slot, file; payload: PIECE records                 → unsealed, or damaged: message
    close    file                                               → closed
"""

import os
import sys
from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain
from struct import Struct

from mcp_backup.arena import Arena
from mcp_backup.channel import Frame, serve_child
from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import Compressor, Decompressor
from mcp_backup.format.crypto import IV_SIZE, Buffer, MasterKey, Sealer
from mcp_backup.page_cache import SharedWriter

PIECE = Struct(
    "<IIIQ32s"
)  # offset in the slot, sealed length, plain length or 0, offset in file, id
NO_FILE = -1
_CHUNK_SIZE = 8  # bytes of a chunk in a request
_ROOM = 512 << 10  # bytes written at once: each write locks the file against the other workers


class SlotSealer:
    """One worker's contexts: keys, compressor, open files. Used by one thread at a time."""

    def __init__(self, arena: Arena, key: MasterKey, level: int) -> None:
        """Prepare to work on `arena`; `level` is zstd's."""
        self.arena = arena
        self._sealer = Sealer(key)
        self._compressor = Compressor(level)
        self._decompressor = Decompressor()
        self._files: dict[int, int] = {}
        self._room, self._shared = memoryview(bytearray(_ROOM)), SharedWriter()

    def hash(self, slot: int, chunks: bytes) -> bytes:
        """Return the blob ids of the slot's chunks; `chunks` are (start, length)."""
        content, numbers = self.arena.content(slot), iter(array("I", chunks))
        return b"".join(
            sha256(content[start : start + length]).digest()
            for start, length in zip(numbers, numbers, strict=True)
        )

    def seal(self, slot: int, chunks: bytes) -> bytes:
        """Seal chunks in place, end to end from the slot's start; `chunks` are (start, length).

        Returns (sealed length, plain length) per blob; plain length 0 means not compressed.
        Chunks must come in ascending order, or output would overtake input.
        """
        plain_lengths = list[int]()
        blobs = self._packed(self.arena.content(slot), array("I", chunks), plain_lengths)
        ivs = os.urandom(IV_SIZE * (len(chunks) // _CHUNK_SIZE))
        lengths = self._sealer.seal_each(blobs, ivs, self.arena.sealed(slot))
        return array("I", chain.from_iterable(zip(lengths, plain_lengths, strict=True))).tobytes()

    def _packed(
        self, content: memoryview, chunks: Iterable[int], plain_lengths: list[int]
    ) -> Iterator[Buffer]:
        """Yield each chunk compressed, where that is smaller, and tell its plain length then."""
        compress, numbers = self._compressor.compress, iter(chunks)
        for start, length in zip(numbers, numbers, strict=True):
            plain = content[start : start + length]
            packed = compress(plain)
            if packed is None:
                plain_lengths.append(0)
                yield plain
            else:
                plain_lengths.append(length)
                yield packed

    def open(self, file: int, path: str) -> None:
        """Open an existing file to unseal into, under a number."""
        self._files[file] = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, file: int) -> None:
        """Close a file opened under that number."""
        os.close(self._files.pop(file))

    def unseal(self, sealed: bytes | memoryview, file: int, pieces: bytes) -> None:
        """Unseal the blobs that lie in `sealed` and write them to the file; prove each id.

        With NO_FILE, prove only.

        Raises:
            IntegrityError: a blob is not what its id says.
            OSError: the file could not be written.
        """
        gathered = None
        if file != NO_FILE:
            gathered = _Gathered(self._files[file], self._room, self._shared)
        for offset, length, plain_length, position, blob in PIECE.iter_unpack(pieces):
            plain = self._sealer.unseal(sealed[offset : offset + length])
            if plain_length:
                plain = self._decompressor.decompress(plain, plain_length)
            if sha256(plain).digest() != blob:
                raise IntegrityError(f"blob {blob.hex()[:16]}…: its bytes do not hash to its id")
            if gathered is not None:
                gathered.add(position, plain)
        if gathered is not None:
            gathered.write()


class _Gathered:
    """Neighbours in a file, gathered in `room` to be written together.

    Copying them costs less than keeping them: the allocator gives back to the system what is freed
    in such numbers, and gets it again page by page.
    """

    def __init__(self, descriptor: int, room: memoryview, shared: SharedWriter) -> None:
        self._descriptor, self._room, self._shared = descriptor, room, shared
        self._start = self._size = 0

    def add(self, position: int, plain: bytes) -> None:
        """Take the bytes that belong at `position`; write those before, where they do not fit."""
        end = self._size + len(plain)
        if position != self._start + self._size or end > len(self._room):
            self.write()
            self._start, end = position, len(plain)
        if end > len(self._room):
            self._shared.write(self._descriptor, memoryview(plain), position)
            self._start += end
        else:
            self._room[self._size : end] = plain
            self._size = end

    def write(self) -> None:
        """Write what was gathered."""
        self._shared.write(self._descriptor, self._room[: self._size], self._start)
        self._start, self._size = self._start + self._size, 0


def unsealed(sealer: SlotSealer, sealed: bytes | memoryview, file: int, pieces: bytes) -> Frame:
    """Unseal, and tell how it went."""
    try:
        sealer.unseal(sealed, file, pieces)
    except IntegrityError as error:
        return Frame("damaged", {"message": str(error)}, b"")
    except OSError as error:
        return Frame("failed", {"message": error.strerror or str(error)}, b"")
    return Frame("unsealed", {}, b"")


def answer(sealer: SlotSealer, frame: Frame) -> Frame:
    """Do what a request says and return the reply."""
    slot, file = frame.fields.get("slot", 0), frame.fields.get("file", NO_FILE)
    match frame.kind:
        case "hash":
            return Frame("hashed", {}, sealer.hash(slot, frame.payload))
        case "seal":
            return Frame("sealed", {}, sealer.seal(slot, frame.payload))
        case "unseal":
            return unsealed(sealer, sealer.arena.sealed(slot), file, frame.payload)
        case "both":
            hashed = sealer.hash(slot, frame.payload)
            return Frame("sealed", {}, hashed + sealer.seal(slot, frame.payload))
        case "open":
            sealer.open(file, frame.fields["path"])
            return Frame("opened", {}, b"")
        case "close":
            sealer.close(file)
            return Frame("closed", {}, b"")
    raise AssertionError(frame.kind)


def main(argv: list[str]) -> None:
    """Run as a worker process until the channel closes."""
    channel, arena = serve_child(argv)
    assert arena is not None
    first = channel.receive()
    if first is None:
        return
    key = MasterKey(first.payload[:32], first.payload[32:48], first.payload[48:64])
    sealer = SlotSealer(arena, key, first.fields["level"])
    channel.send("ready")
    while (frame := channel.receive()) is not None:
        channel.reply(answer(sealer, frame))
    os._exit(0)  # nothing that was loaded is worth taking down


if __name__ == "__main__":
    main(sys.argv)
