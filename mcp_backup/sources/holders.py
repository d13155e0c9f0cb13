"""Who has a file open: from /proc on Linux, by asking `lsof` elsewhere.

Processes of other users are seen only by root; so an empty answer proves nothing, and locks
decide. What is told of a process is its name, and the script's for interpreters: command lines
carry secrets.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mcp_backup.sources.source import Holder

_PROC = Path("/proc")
_DELETED = " (deleted)"
_INTERPRETERS = ("python", "node", "ruby", "perl", "java", "bun", "deno", "uv")
_LSOF_SECONDS = 20


def holders_of(paths: Iterable[str]) -> list[Holder]:
    """Return the processes, but this one, that have any of `paths` open, one `Holder` per file.

    A process that holds a deleted file which had one of these names is among them: what it
    writes goes nowhere.
    """
    names = list(paths)
    found = _from_proc(names) if sys.platform == "linux" else _from_lsof(names)
    return sorted(set(found), key=lambda holder: (holder.pid, holder.path))


def named(holders: Iterable[Holder]) -> str:
    """Word holders for a sentence: "python app.py (pid 4711)"; "" for none."""
    words = {holder.pid: f"{holder.command} (pid {holder.pid})" for holder in holders}
    return ", ".join(words.values())


def _from_proc(names: list[str]) -> Iterator[Holder]:
    wanted = {}
    for name in names:
        try:
            status = os.stat(name)
        except OSError:
            continue
        wanted[status.st_dev, status.st_ino] = name
    gone = {name + _DELETED: name for name in names}
    for process in _PROC.iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            for path in _open_in(process, wanted, gone):
                yield Holder(int(process.name), _command(process), path)


def _open_in(
    process: Path, wanted: Mapping[tuple[int, int], str], gone: Mapping[str, str]
) -> Iterator[str]:
    try:
        descriptors = os.listdir(process / "fd")
    except OSError:  # ended, or another user's
        return
    for descriptor in descriptors:
        link = f"{process}/fd/{descriptor}"
        try:
            target = os.readlink(link)
            if not target.startswith("/"):
                continue
            status = os.stat(link)
        except OSError:
            continue
        path = wanted.get((status.st_dev, status.st_ino)) or gone.get(target)
        if path:
            yield path


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        name = (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
    if name.startswith(_INTERPRETERS):
        script = next((word for word in words[1:] if word and not word.startswith(b"-")), b"")
        if script.endswith((b".py", b".js", b".mjs", b".ts", b".rb", b".pl", b".jar")):
            return f"{name} {os.path.basename(os.fsdecode(script))}"
    return name


def _from_lsof(names: list[str]) -> Iterator[Holder]:
    lsof = shutil.which("lsof") or "/usr/sbin/lsof"
    present = [name for name in names if os.path.exists(name)]
    if not present or not os.path.exists(lsof):
        return
    answer = subprocess.run(
        [lsof, "-w", "-F", "pcn", "--", *present],
        capture_output=True,
        timeout=_LSOF_SECONDS,
        check=False,  # 1 when a file is open nowhere
    )
    pid, command = 0, "?"
    for line in os.fsdecode(answer.stdout).splitlines():
        match line[:1]:
            case "p":
                pid, command = int(line[1:]), "?"
            case "c":
                command = line[1:]
            case "n" if pid != os.getpid():
                yield Holder(pid, command, line[1:])
