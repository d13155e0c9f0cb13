"""Reading: one capture on its way into the repository, entries into a tree and bytes into blobs."""

from collections.abc import Sequence

from msgspec import Struct

from mcp_backup.backup.contents import ImageContent, StreamContent
from mcp_backup.backup.segments import SegmentCache
from mcp_backup.backup.trees import Directory
from mcp_backup.format.chunking import default_chunk_size
from mcp_backup.format.ids import BlobId
from mcp_backup.format.tree import Node
from mcp_backup.progress import Listener, Progress
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.writer import Writer
from mcp_backup.sources.capture import Capture, FileEnd, Filled
from mcp_backup.sources.digest import SEGMENT
from mcp_backup.sources.source import Entry, Evidence, SourceSpec
from mcp_backup.tasks import task_group

_RESERVED_SLOTS = 2  # for batches of content-cut chunks, while a capture holds all the others


class Reading:
    """One capture being consumed: entries into `root`, bytes into the repository."""

    def __init__(
        self, writer: Writer, pool: SealingPool, segments: SegmentCache, tree: str, chunk_size: int
    ) -> None:
        """Read what will lie at `tree` in the snapshot; a `chunk_size` of 0 is for us to choose."""
        self.root = Directory()
        self.chunk_size = chunk_size
        self._segments, self._tree = segments, tree
        self._writer, self._pool = writer, pool
        self._lent: set[int] = set()

    async def run(self, capture: Capture, spec: SourceSpec, listener: Listener) -> Evidence:
        """Consume the capture to its end; return its evidence. `release` must follow."""
        for _ in range(self._pool.arena.slots - _RESERVED_SLOTS):
            slot = await self._pool.slots.take()
            self._lent.add(slot)
            await capture.give(slot)
        while True:
            event = await capture.next()
            if isinstance(event, Entry):
                await self._entry(event, capture, spec, listener)
            else:
                assert isinstance(event, Evidence), event
                return event

    def release(self) -> None:
        """Free the slots that were lent to the worker, which has ended by now."""
        for slot in self._lent:
            self._pool.slots.give_back(slot)

    async def _entry(
        self, entry: Entry, capture: Capture, spec: SourceSpec, listener: Listener
    ) -> None:
        match entry.type:
            case "dir":
                self.root.add(entry.path, Directory(_node(entry, None, 0)))
            case "symlink":
                self.root.add(entry.path, _node(entry, None, 0))
            case "file":
                report = _Report(listener, spec.name, entry.size)
                content, size = await self._file(entry, capture, report)
                self.root.add(entry.path, _node(entry, content, size))

    async def _file(
        self, entry: Entry, capture: Capture, report: "_Report"
    ) -> tuple[tuple[BlobId, ...], int]:
        if entry.layout == "image":
            if not self.chunk_size or self.chunk_size % max(entry.page_size, 1):
                self.chunk_size = default_chunk_size(entry.size, entry.page_size)
            return await self._known_image(entry, capture, report)
        return await self._stream(capture, StreamContent(self._writer, self._pool), report)

    async def _known_image(
        self, entry: Entry, capture: Capture, report: "_Report"
    ) -> tuple[tuple[BlobId, ...], int]:
        if entry.lead or SEGMENT % self.chunk_size:  # cuts do not fall on the borders of segments
            content = ImageContent(self._writer, self.chunk_size, entry.lead)
            return await self._image(capture, content, report)
        place = f"{self._tree}/{entry.path}"
        before = await self._segments.load(place, self.chunk_size)
        content = ImageContent(self._writer, self.chunk_size, before=before)
        done = await self._image(capture, content, report)
        await self._segments.save(place, content.segments)
        return done

    async def _image(
        self, capture: Capture, content: ImageContent, report: "_Report"
    ) -> tuple[tuple[BlobId, ...], int]:
        async def save(filled: Filled) -> None:
            await content.save(filled.slot, filled.offset, filled.length, filled.segments)
            await capture.give(filled.slot)
            await report.add(filled.length)

        async with task_group() as saves:
            while isinstance(event := await capture.next(), Filled):
                saves.start_soon(save, event)
        assert isinstance(event, FileEnd), event
        return content.finish(), event.size

    async def _stream(
        self, capture: Capture, content: StreamContent, report: "_Report"
    ) -> tuple[tuple[BlobId, ...], int]:
        while isinstance(event := await capture.next(), Filled):
            await content.save(event.slot, event.length)
            await capture.give(event.slot)
            await report.add(event.length)
        assert isinstance(event, FileEnd), event
        return await content.finish(), event.size


class _Report(Struct):
    """How far one file is."""

    listener: Listener
    source: str
    total: int
    done: int = 0

    async def add(self, length: int) -> None:
        self.done += length
        await self.listener(Progress("capture", self.source, self.done, max(self.total, self.done)))


def _node(entry: Entry, content: Sequence[BlobId] | None, size: int) -> Node:
    return Node(
        name=entry.path.rpartition("/")[2],
        type=entry.type,
        mode=entry.mode,
        mtime_ns=entry.mtime_ns,
        atime_ns=entry.mtime_ns,
        ctime_ns=entry.mtime_ns,
        uid=entry.uid,
        gid=entry.gid,
        user=entry.user,
        group=entry.group,
        size=size,
        link_target=entry.link_target,
        content=tuple(content) if content is not None else None,
    )
