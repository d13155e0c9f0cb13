"""A capture's stream, taken by a real sink through a real socket and a real arena."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp_backup.arena import Arena
from mcp_backup.channel import Channel
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Component, Entry, Evidence, SourceSpec


@dataclass
class Collected:
    """What arrived: entries in order, each file's bytes, and what the source said."""

    entries: list[Entry] = field(default_factory=list)
    content: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=lambda: Evidence("none", ()))

    @property
    def paths(self) -> list[str]:
        return [entry.path for entry in self.entries]

    def entry(self, path: str) -> Entry:
        return next(entry for entry in self.entries if entry.path == path)


def files_at(root: Path, *include: str, exclude: tuple[str, ...] = ()) -> SourceSpec:
    return SourceSpec(
        "settings",
        Component.CONFIG,
        "files",
        str(root),
        {"include": list(include), "exclude": list(exclude)},
    )


def collect(capture: Callable[[Sink], Evidence], slots: int = 2) -> Collected:
    """Run a capture into a sink and play the parent: slots go round, frames are kept."""
    ours, theirs = socket.socketpair()
    arena = Arena.create(slots)
    collected = Collected()
    child, parent = Channel(theirs), Channel(ours)
    taking = threading.Thread(target=_take, args=(parent, arena, collected))
    taking.start()
    try:
        collected.evidence = capture(Sink(child, arena))
    finally:
        child.send("over")
        taking.join()
        for channel, end in ((child, theirs), (parent, ours)):
            channel._file.close()
            end.close()
        os.close(arena.fd)
    return collected


def _take(channel: Channel, arena: Arena, collected: Collected) -> None:
    for slot in range(arena.slots):
        channel.send("give", slot=slot)
    path = ""
    while (frame := channel.receive()) is not None and frame.kind != "over":
        fields: Mapping[str, Any] = frame.fields
        if frame.kind == "entry":
            entry = Entry(**fields)
            collected.entries.append(entry)
            path = entry.path
            if entry.type == "file":
                collected.content[path] = b""
        elif frame.kind == "filled":
            known, at = collected.content[path], fields["offset"]
            assert at == len(known) or collected.entry(path).layout == "image"
            content = bytes(arena.content(fields["slot"])[: fields["length"]])
            known = known.ljust(at, b"\0")  # an image's first slot comes last
            collected.content[path] = known[:at] + content + known[at + len(content) :]
            channel.send("give", slot=fields["slot"])
        elif frame.kind == "file_end":
            assert fields["size"] == len(collected.content[path])
            collected.digests[path] = fields["digest"]
