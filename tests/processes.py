"""Looking for processes, through /proc: whose children, running what."""

import os
from collections.abc import Iterator
from pathlib import Path


def workers(module: str = "", parent: int | None = None) -> list[int]:
    """The living workers of a process (by default this one) that run a module, or all below it."""
    return [
        pid
        for pid in below(os.getpid() if parent is None else parent)
        if not module or f" -m {module} " in command_of(pid) or _forked_as(pid, module)
    ]


def _forked_as(pid: int, module: str) -> bool:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return False
    return name == f"backup:{module.rpartition('.')[2]}"


def below(pid: int) -> Iterator[int]:
    """The living processes that a process started, and those that they did."""
    for child in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if parent_of(child) == pid:
            yield child
            yield from below(child)


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
