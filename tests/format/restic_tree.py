"""How `restic_tree.json` was made: the tree of a directory of odd names, written by restic itself.

Made with restic 0.14.0 (Go 1.19.8) on Debian 12. To make it again, as root in an empty directory:

    python restic_tree.py DIRECTORY > restic_tree.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path

NAMES = {  # name on disk → mtime in nanoseconds
    b"plain": 1_700_000_000_000_000_000,
    b'a"b': 1_700_000_000_000_000_001,
    b"back\\slash": 1_700_000_000_500_000_000,
    b"<&>'": 1_700_000_000_000_120_000,
    b"tab\tnl\n": 1_700_000_000_999_999_999,
    b"\xff\x80\xe2\x82": 0,
    b"nbsp\xc2\xa0": -1,
    b"\xf0\x9f\x98\x80": -1_000_000_001,
    "zwj\u200d".encode(): 1,
    "ls\u2028".encode(): 10,
    b"c1\xc2\x85": 4_102_444_800_000_000_000,
    b"del\x7f": 0,
    b"\x01\x07\x08\x0b\x0c\x0d\x1f": 0,
    "\ufffd".encode(): 0,
    "private\ue000".encode(): 0,
    "tag\U000e0001".encode(): 0,
    "e\u0301".encode(): 0,
    b".hidden": 0,
    b" ": 0,
    b"Z": 0,
    b"z": 0,
    "é".encode(): 0,
}


def make(directory: Path) -> bytes:
    """Make the files below `directory`, back them up, and return their tree as it is stored."""
    source = os.fsencode(directory / "source")
    os.mkdir(source)
    for number, (name, mtime) in enumerate(NAMES.items()):
        path = os.path.join(source, name)
        Path(os.fsdecode(path)).write_bytes(b"%d" % number if number else b"")
        os.utime(path, ns=(mtime, mtime))
    os.chmod(os.path.join(source, b"plain"), 0o4755)  # noqa: S103
    os.symlink(b"to<&>\t", os.path.join(source, b"link"))
    os.mkfifo(os.path.join(source, b"fifo"), 0o600)
    os.mknod(os.path.join(source, b"null"), 0o20666, os.makedev(1, 3))
    os.mkdir(os.path.join(source, b"directory"))
    os.chmod(os.path.join(source, b"directory"), 0o1777)  # noqa: S103
    _restic(directory, "init")
    _restic(directory, "backup", os.fsdecode(source))
    (snapshot,) = json.loads(_restic(directory, "snapshots", "--json"))
    tree = snapshot["tree"]
    for _ in source.strip(b"/").split(b"/"):
        (node,) = json.loads(_restic(directory, "cat", "blob", tree))["nodes"]
        tree = node["subtree"]
    return _restic(directory, "cat", "blob", tree)


def _restic(directory: Path, *command: str) -> bytes:
    options = ["restic", "--quiet", "--no-cache", "--repo", str(directory / "repository")]
    environ = {**os.environ, "RESTIC_PASSWORD": "restic"}
    run = subprocess.run([*options, *command], env=environ, check=True, capture_output=True)
    return run.stdout


if __name__ == "__main__":
    sys.stdout.buffer.write(make(Path(sys.argv[1])))
