"""Frames between a process and its workers, and the worker's end of the channel.

    frame = uint32 LE length of head │ uint32 LE length of payload │ head │ payload
    head  = JSON [kind, {field: value}], UTF-8; payload = bytes, meaning given by kind

JSON and not pickle: a child reads hostile files, and its parent must not run what it sends. Workers
start for each operation, so what a worker imports is kept small: the parent's end, which needs an
event loop, is in `workers.py`.
"""

import gc
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcp_backup.arena import Arena

HEADER = struct.Struct("<II")


class Frame(NamedTuple):
    """One message. `fields` are JSON values; `payload` is bytes whose meaning `kind` gives."""

    kind: str
    fields: Mapping[str, Any]
    payload: bytes

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        head = json.dumps([self.kind, self.fields], separators=(",", ":")).encode()
        return HEADER.pack(len(head), len(self.payload)) + head + self.payload


def decode_frame(head: bytes, payload: bytes) -> Frame:
    """Return the frame that has this head and payload."""
    kind, fields = json.loads(head)
    return Frame(kind, fields, payload)


class Channel:
    """The child's end. Blocking; used by one thread."""

    def __init__(self, connection: socket.socket) -> None:
        """Wrap the inherited socket."""
        self._connection = connection
        self._file = connection.makefile("rb", buffering=1 << 16)

    def send(self, kind: str, payload: bytes = b"", /, **fields: Any) -> None:
        """Send one frame, given in parts."""
        self.reply(Frame(kind, fields, payload))

    def reply(self, frame: Frame) -> None:
        """Send one frame; ends the process when the parent has gone."""
        try:
            self._connection.sendall(frame.encode())
        except OSError:
            os._exit(0)  # nobody is left to tell

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the parent closed the channel or has gone."""
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        head_size, payload_size = HEADER.unpack(header)
        head, payload = self._file.read(head_size), self._file.read(payload_size)
        if len(payload) < payload_size:
            return None
        return decode_frame(head, payload)


def serve_child(argv: list[str]) -> tuple[Channel, Arena | None]:
    """Set a child process up: its channel, its arena, and its end with its parent.

    Called first by the `__main__` part of a worker module, with `sys.argv`.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # restic probes lock holders with it
    os.umask(0o077)
    gc.disable()  # one task, then the end: there is no time for cycles to add up
    parent = int(argv[3])
    if os.getppid() != parent:
        os._exit(0)  # it was killed meanwhile, and nobody would know of what is done now
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    channel = Channel(socket.socket(fileno=int(argv[1])))
    if not argv[2]:
        return channel, None
    fd, slots = argv[2].split(":")
    return channel, Arena(int(fd), int(slots))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)
