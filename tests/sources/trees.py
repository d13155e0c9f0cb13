"""Small trees, written and read back as plain data."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LONG_AGO_NS = 1_700_000_000_000_000_000

Shape = Mapping[str, str | tuple[str, int]]


def make(root: Path, shape: Shape) -> Path:
    """Make `root`: "a/": a directory, "a": "@b": a link to b, else a file (with a mode)."""
    root.mkdir(parents=True, exist_ok=True)
    for path, value in shape.items():
        content, mode = value if isinstance(value, tuple) else (value, -1)
        whole = root / path
        if path.endswith("/"):
            whole.mkdir(parents=True, exist_ok=True)
        else:
            whole.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("@"):
                whole.symlink_to(content[1:])
                continue
            whole.write_text(content)
            os.utime(whole, ns=(LONG_AGO_NS, LONG_AGO_NS))
        if mode >= 0:
            whole.chmod(mode)
    return root


def look(root: Path) -> dict[str, tuple[str, ...]]:
    """Read a tree: path → type, mode, owner, time, and content or target."""
    seen: dict[str, tuple[str, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        owner = f"{status.st_uid}:{status.st_gid}"
        name = str(path.relative_to(root))
        if path.is_symlink():
            seen[name] = ("symlink", owner, os.readlink(path))
        elif path.is_dir():
            seen[name] = ("dir", mode, owner)
        elif path.is_file():
            seen[name] = ("file", mode, owner, str(status.st_mtime_ns), path.read_text())
        else:
            seen[name] = ("special",)
    return seen


def content(root: Path) -> dict[str, str]:
    """Read a tree's files, links and directories, without anything beside their content."""
    return {
        path: {"file": seen[-1], "symlink": f"@{seen[-1]}", "dir": "/"}.get(seen[0], "special")
        for path, seen in look(root).items()
    }


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a block, where the tests run as root."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
