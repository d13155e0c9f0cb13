"""Looking for processes, through /proc: whose children, running what."""

import os
from pathlib import Path


def children(module: str = "", parent: int | None = None) -> list[int]:
    """The living children of a process (by default this one) that run a module."""
    parent = os.getpid() if parent is None else parent
    return [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if parent_of(pid) == parent and module in command_of(pid)
    ]


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it is gone, or dead and not yet waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, parent = text.rpartition(") ")[2].split()[:2]
    return 0 if state in "ZX" else int(parent)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
