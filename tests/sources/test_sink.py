"""The sink: bytes by offset in, slots and digests out."""

import os
import socket
import threading

import pytest

from mcp_backup.arena import SLOT_SIZE, Arena
from mcp_backup.channel import Channel, Frame
from mcp_backup.sources import digest
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Entry


class Parent:
    """Hands out slots, keeps every frame, and puts the file together."""

    def __init__(self, slots: int = 2) -> None:
        self.frames: list[Frame] = []
        self.content = bytearray()
        self.offsets: list[int] = []
        ours, theirs = socket.socketpair()
        self._sockets = ours, theirs
        self._child, self._parent = Channel(theirs), Channel(ours)
        self._arena = Arena.create(slots)
        self.sink = Sink(self._child, self._arena)
        self._thread = threading.Thread(target=self._receive)

    def __enter__(self) -> "Parent":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.send("over")
        self._thread.join()
        for channel in (self._child, self._parent):
            channel._file.close()
        for end in self._sockets:
            end.close()
        os.close(self._arena.fd)

    def _receive(self) -> None:
        for slot in range(self._arena.slots):
            self._parent.send("give", slot=slot)
        while (frame := self._parent.receive()) is not None and frame.kind != "over":
            self.frames.append(frame)
            if frame.kind == "filled":
                slot, at, length = (frame.fields[key] for key in ("slot", "offset", "length"))
                self.content.extend(bytes(max(0, at + length - len(self.content))))
                self.content[at : at + length] = self._arena.content(slot)[:length]
                self.offsets.append(at)
                self._parent.send("give", slot=slot)


_IMAGE = Entry("image", "file", 0o600, 0, layout="image", page_size=4096)
_STREAM = Entry("stream", "file", 0o600, 0)


def test_an_image_whose_first_page_comes_last_arrives_whole() -> None:
    count = 5 * SLOT_SIZE // 2 // 4096
    pages = [os.urandom(4096) for _ in range(count)]
    with Parent() as parent:
        parent.sink.entry(_IMAGE)
        for number in [*range(1, count), 0]:
            parent.sink.write_at(number * 4096, pages[number])
        seen = parent.sink.end_file("/live")
    assert bytes(parent.content) == b"".join(pages)
    assert parent.offsets == [SLOT_SIZE, 2 * SLOT_SIZE, 0]
    assert seen.size == len(parent.content)
    assert seen.digest == digest.of_segments(digest.segments(parent.content))


def test_a_gap_becomes_zeros() -> None:
    with Parent() as parent:
        parent.sink.entry(_IMAGE)
        parent.sink.write_at(3 * SLOT_SIZE + 4096, b"x" * 4096)
        parent.sink.write_at(0, b"y" * 4096)
        seen = parent.sink.end_file("/live")
    expected = b"y" * 4096 + bytes(3 * SLOT_SIZE) + b"x" * 4096
    assert bytes(parent.content) == expected
    assert seen.digest == digest.of_segments(digest.segments(expected))


@pytest.mark.parametrize("size", [0, 1, 65536, SLOT_SIZE, SLOT_SIZE + 1, 3 * SLOT_SIZE + 70_000])
@pytest.mark.parametrize("entry", [_IMAGE, _STREAM])
def test_any_size_arrives_whole(size: int, entry: Entry) -> None:
    content = os.urandom(size)
    with Parent() as parent:
        parent.sink.entry(entry)
        parent.sink.write(content[:100])
        parent.sink.write(content[100:])
        seen = parent.sink.end_file("/live")
    assert bytes(parent.content) == content
    assert (seen.size, seen.path, seen.original) == (size, entry.path, "/live")
    assert seen.digest == digest.of_segments(digest.segments(content))
    assert parent.frames[-1].fields == {"size": size, "digest": seen.digest}


def test_bytes_that_were_handed_over_cannot_be_written_again() -> None:
    with Parent() as parent:
        parent.sink.entry(_IMAGE)
        parent.sink.write_at(2 * SLOT_SIZE, b"x")
        with pytest.raises(ValueError, match="has been handed over"):
            parent.sink.write_at(SLOT_SIZE, b"y")
        parent.sink.end_file("/live")


def test_files_follow_one_another() -> None:
    with Parent() as parent:
        for entry in (_STREAM, _IMAGE, _STREAM):
            parent.sink.entry(entry)
            parent.sink.write(b"z" * 5_000)
            assert parent.sink.end_file("/live").size == 5_000
    kinds = [frame.kind for frame in parent.frames]
    assert kinds == ["entry", "filled", "file_end"] * 3
