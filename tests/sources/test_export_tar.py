import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.zstd import inflate, stream_compressor
from mcp_backup.sources.export_tar import Content, write_entries, write_tar
from mcp_backup.sources.source import Entry
from tests.sources.trees import Shape, look, make

SHAPE: Shape = {
    ".env": ("TOKEN=1", 0o600),
    "bin/tool": ("#!", 0o755),
    "empty": "",
    "empty-directory/": "",
    "link": "@bin/tool",
    "dangling": "@/nowhere/at/all",
    "deep/" + "long-directory-name/" * 20 + "x" * 120: "deep",
    "tail": "x" * 1024,
}


def written(entries: Iterable[tuple[Entry, Content]]) -> bytes:
    buffer = io.BytesIO()
    write_entries(entries, buffer, stream_compressor(3))
    return inflate(buffer.getvalue(), 1 << 24)


def file(path: str, size: int, mtime_ns: int = 0) -> Entry:
    return Entry(path, "file", 0o644, mtime_ns, size=size)


def test_a_tree_comes_out_of_the_archive_as_it_went_in(tmp_path: Path) -> None:
    tree = make(tmp_path / "tree", SHAPE)
    (tree / "caf\udce9").write_text("latin")
    os.utime(tree / "empty", ns=(1, 1_700_000_000_123_456_789))
    count = write_tar(tree, tmp_path / "out.tar.zst", stream_compressor(3))
    archive = inflate((tmp_path / "out.tar.zst").read_bytes(), 1 << 24)
    assert len(archive) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert members.keys() == look(tree).keys()
        assert len(members) == count
        assert members["empty"].pax_headers["mtime"] == "1700000000.123456789"
        assert (members["bin/tool"].mode, members[".env"].mode) == (0o755, 0o600)
        assert members["dangling"].linkname == "/nowhere/at/all"
        assert members["empty-directory"].isdir()
        tail = tar.extractfile("tail")
        assert tail is not None
        assert tail.read() == b"x" * 1024


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_gnu_tar_restores_it_to_the_nanosecond(tmp_path: Path) -> None:
    tree = make(tmp_path / "tree", SHAPE)
    os.utime(tree / "empty", ns=(1, 1_700_000_000_123_456_789))
    write_tar(tree, tmp_path / "out.tar.zst", stream_compressor(3))
    (tmp_path / "copy").mkdir()
    subprocess.run(["tar", "--zstd", "-xpf", "../out.tar.zst"], cwd=tmp_path / "copy", check=True)
    assert look(tmp_path / "copy") == look(tree)


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shape = dict(SHAPE if name == "one" else list(SHAPE.items())[::-1])
        tree = make(tmp_path / name, shape)
        for path in (tree, *tree.rglob("*")):
            os.utime(path, (7, 7), follow_symlinks=False)
        write_tar(tree, tmp_path / f"{name}.tar.zst", stream_compressor(3))
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()


@pytest.mark.parametrize("content", [b"", b"abc", b"abcde"])
def test_content_of_another_size_than_announced_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match=f"{len(content)} bytes came, and 4 were announced"):
        written([(file("a", 4), [content])])


@pytest.mark.parametrize("path", ["../a", "/a", "a/../b", "", "a//b"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(IntegrityError, match="not a plain relative path"):
        written([(file(path, 0), [])])


@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300)
    | st.binary(min_size=1, max_size=200).map(os.fsdecode),
    pieces=st.lists(st.binary(max_size=2000), max_size=4),
    mtime_ns=st.integers(-(2**40), 2**62),
)
def test_any_name_content_and_time_are_read_back(
    name: str, pieces: list[bytes], mtime_ns: int
) -> None:
    whole = b"".join(pieces)
    path = "d/" + name.replace("/", "_").replace("\0", "_") + "!"
    archive = written([(file(path, len(whole), mtime_ns), pieces)])
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        (member,) = tar.getmembers()
        assert os.fsencode(member.name) == os.fsencode(path)
        told = member.pax_headers.get("mtime", f"{int(member.mtime)}.0")
        seconds, _, fraction = told.lstrip("-").partition(".")
        exact = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        assert (-exact if told.startswith("-") else exact) == mtime_ns
        extracted = tar.extractfile(member)
        assert extracted is not None
        assert extracted.read() == whole
