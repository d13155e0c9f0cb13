"""A glance at live SQLite files: what tells one state of them from another.

Run as a script it is a worker that does nothing else (`worker` has the others). To start Python
with what ours import takes 60 ms, which is most of what a backup takes of a database that did not
change; this needs hardly more than what Python itself has loaded, takes 13, and imports no more.

    parent → child   any frame, whose payload is the databases' paths, each ended by a zero byte
    child → parent   answer, whose payload is a line for each: what `told` says
"""

import fcntl
import os
import stat
import sys
import time

HEADER_SIZE = 100
SETTLED_NS = 2_000_000_000  # timestamps are up to 4 ms coarse on kernels before 6.13
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_WORD = 4  # bytes of each of the two lengths before a frame (channel.py)
_HEAD = b'["answer",{}]'


def told(path: str) -> str:
    """Tell the live state of the database at `path` as one line of ASCII.

    It equals an earlier one only if nothing was committed since. "" when nothing sound can be
    said: a transaction is under way, or something changed less than two seconds ago.

    Raises:
        OSError: it cannot be read; there is none, or it is no regular file.
    """
    real = os.path.realpath(path)
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise OSError
    seen, newest = identity(real)
    if is_hot(real + "-journal") or time.time_ns() - newest < SETTLED_NS:
        return ""
    return repr(seen)


def identity(path: str) -> tuple[tuple[object, ...], int]:
    """Return all by which a change is seen, and the newest time of change among the files.

    `path` is the real one, since the side files lie beside that.
    """
    seen: list[object] = []
    newest = 0
    for suffix, length in (("", HEADER_SIZE), ("-wal", 32), ("-journal", 32)):
        try:
            status = os.stat(path + suffix)
        except FileNotFoundError:
            continue
        if suffix and not status.st_size:
            continue  # an empty side file is none
        if suffix == "-journal" and not is_hot(path + suffix):
            continue  # nor is one that has been done with
        with open(path + suffix, "rb", buffering=0) as file:
            header = file.read(length)
        times = (status.st_mtime_ns, status.st_ctime_ns)
        seen.append((suffix, status.st_dev, status.st_ino, status.st_size, times))
        seen.append(header)
        newest = max(newest, *times)
    return tuple(seen), newest


def is_hot(journal: str) -> bool:
    """Whether a journal may hold a transaction; a finished one is gone, empty, or zeroed."""
    try:
        with open(journal, "rb", buffering=0) as file:
            return file.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC
    except FileNotFoundError:
        return False


def _told_or_nothing(path: bytes) -> str:
    try:
        return told(os.fsdecode(path))
    except OSError:
        return ""  # whatever it is, the capture will meet it and say so


def _serve(descriptor: int, parent: int) -> None:
    """Answer one frame. Where the parent ends, so do we, also while a file does not answer."""
    head_size = int.from_bytes(_exactly(descriptor, _WORD), "little")
    payload_size = int.from_bytes(_exactly(descriptor, _WORD), "little")
    _exactly(descriptor, head_size)
    paths = _exactly(descriptor, payload_size).split(b"\0")[:-1]
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)  # the parent's end is SIGIO
    if os.getppid() != parent:
        os._exit(0)  # it was killed before
    payload = "\n".join(map(_told_or_nothing, paths)).encode("ascii")
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_RDWR)
    sizes = (len(_HEAD).to_bytes(_WORD, "little"), len(payload).to_bytes(_WORD, "little"))
    rest = b"".join((*sizes, _HEAD, payload))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _exactly(descriptor: int, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            os._exit(0)
        parts += part
    return parts


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[3]))
    os._exit(0)  # at once: there is nothing to take down
