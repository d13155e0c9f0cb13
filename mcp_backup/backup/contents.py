"""Contents: from a capture's slots to the list of blobs that make up a file.

An image is cut at fixed offsets, so a page that changed in place changes one chunk and nothing
behind it; its slots are saved side by side and in any order. Any other file is cut by what it
holds, so an insertion moves the cuts with it; its slots are taken in order.
"""

from collections.abc import Sequence

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.backup.segments import Segments
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.chunking import ContentCutter, fixed
from mcp_backup.format.ids import ID_SIZE, BlobId, split
from mcp_backup.repository.pool import MAX_CHUNKS, SealingPool
from mcp_backup.repository.writer import Writer
from mcp_backup.sources.digest import SEGMENT

_FEW = 4  # chunks that are not worth a slot and a worker's attention


class ImageContent:
    """A file cut every `chunk_size` bytes. Slots may be saved concurrently.

    With a `lead`, the cuts are counted from there, so that they fall on the borders of blocks that
    begin after a header: a block that moved by whole blocks is known again. Every slot is cut
    alike, at its own first `lead` bytes too.
    """

    def __init__(
        self, writer: Writer, chunk_size: int, lead: int = 0, before: Segments | None = None
    ) -> None:
        """Begin an empty file; `chunk_size` divides SLOT_SIZE and is larger than `lead`.

        `before` is the file as it was, cut alike: the chunks of segments that are as they were are
        taken over. Cuts have to fall on the borders of segments for that.
        """
        assert SLOT_SIZE % chunk_size == 0
        assert lead < chunk_size
        assert before is None or (before.chunk_size == chunk_size and not lead)
        self._writer, self._chunk_size, self._lead = writer, chunk_size, lead
        self._per_slot = SLOT_SIZE // chunk_size + (lead > 0)
        self._before = before
        self._ids, self._digests = bytearray(), bytearray()

    async def save(self, slot: int, offset: int, length: int, digests: bytes) -> None:
        """Save the slot's `length` bytes, which stand at `offset` in the file.

        `digests` are those of its segments.
        """
        lead = min(self._lead, length)
        lengths = [lead, *fixed(length - lead, self._chunk_size)] if lead else None
        known = self._before.known(offset, digests) if self._before else b""
        ids = await self._writer.save_slot(slot, lengths or fixed(length, self._chunk_size), known)
        _put(self._ids, offset // SLOT_SIZE * self._per_slot * ID_SIZE, ids)
        if self._before:
            _put(self._digests, offset // SEGMENT * ID_SIZE, digests)

    def finish(self) -> tuple[BlobId, ...]:
        """Return the file's blobs in order, once all slots are saved."""
        return tuple(split(self._ids))

    @property
    def segments(self) -> Segments:
        """The file as the next backup may know it, once all slots are saved."""
        return Segments(self._chunk_size, self._digests, self._ids)


def _put(array: bytearray, at: int, data: bytes) -> None:
    array.extend(bytes(max(0, at + len(data) - len(array))))
    array[at : at + len(data)] = data


class StreamContent:
    """A file cut by its content. Slots must be saved one after the other, in order."""

    def __init__(self, writer: Writer, pool: SealingPool) -> None:
        """Begin an empty file."""
        self._writer, self._pool = writer, pool
        self._cutter = ContentCutter()
        self._chunks: list[bytes] = []
        self._size = 0
        self._ids = bytearray()

    async def save(self, slot: int, length: int) -> None:
        """Take the slot's `length` bytes, which come next in the file."""
        for chunk in self._cutter.feed(bytes(self._pool.arena.content(slot)[:length])):
            await self._add(chunk)

    async def finish(self) -> tuple[BlobId, ...]:
        """Save what is left and return the file's blobs in order."""
        for chunk in self._cutter.finish():
            await self._add(chunk)
        await self._flush()
        return tuple(split(self._ids))

    async def _add(self, chunk: bytes) -> None:
        if self._size + len(chunk) > SLOT_SIZE or len(self._chunks) == MAX_CHUNKS:
            await self._flush()
        self._chunks.append(chunk)
        self._size += len(chunk)

    async def _flush(self) -> None:
        chunks, self._chunks, self._size = self._chunks, [], 0
        if len(chunks) <= _FEW:
            for chunk in chunks:
                self._ids += await self._writer.save(BlobKind.DATA, chunk)
        else:
            self._ids += await self._save_together(chunks)

    async def _save_together(self, chunks: Sequence[bytes]) -> bytes:
        slot = await self._pool.slots.take()
        try:
            whole = b"".join(chunks)
            self._pool.arena.content(slot)[: len(whole)] = whole
            return await self._writer.save_slot(slot, [len(chunk) for chunk in chunks])
        finally:
            self._pool.slots.give_back(slot)
