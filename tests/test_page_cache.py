"""What is read or written once leaves the machine's page cache as it was."""

import ctypes
import errno
import mmap
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup import page_cache
from mcp_backup.verbs import BackupType, CreateRequest
from tests.system import System, make_system

MEBIBYTE = 1 << 20
ON_DEMAND = CreateRequest(backup_type=BackupType.DATABASE, verify=False)


def cached(path: Path) -> int:
    """How many of a file's bytes are in the page cache (mincore; a read would bring more there)."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        asked = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.byref(first), ctypes.c_size_t(size), pages
        )
        assert asked == 0, os.strerror(ctypes.get_errno())
        del first
        return sum(page & 1 for page in pages) * mmap.PAGESIZE


def dropped(path: Path) -> None:
    """Take a file out of the cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.fixture
async def system(tmp_path: Path) -> System:
    """One whose database has 6 MiB that do not compress, on a disk that can be told from memory."""
    (tmp_path / "there").write_bytes(bytes(4 * MEBIBYTE))
    dropped(tmp_path / "there")
    if cached(tmp_path / "there"):
        pytest.skip(f"{tmp_path} is kept in memory: choose another with --basetemp")
    system = await make_system(tmp_path / "system")
    with closing(sqlite3.connect(system.notes)) as connection, connection:
        connection.execute("CREATE TABLE bytes AS SELECT randomblob(6 << 20) AS them")
    return system


async def test_a_backup_is_not_kept_in_memory_but_on_the_disk(system: System) -> None:
    async with system.engine() as engine:
        backup = await engine.create(ON_DEMAND)
        packs = [path for path in (system.repository / "data").rglob("*") if path.is_file()]
        large = [path for path in packs if path.stat().st_size > MEBIBYTE]
        assert large
        assert sum(map(cached, large)) == 0
        await engine.verify(backup.backup_id)
        assert sum(map(cached, large)) < MEBIBYTE  # what the kernel read ahead may be there


async def test_a_backup_leaves_the_live_files_pages_in_memory(system: System) -> None:
    before = len(system.notes.read_bytes())
    async with system.engine() as engine:
        await engine.create(ON_DEMAND)
    assert cached(system.notes) >= before


@pytest.mark.skipif(not page_cache._FLAGS, reason="Linux can do this since 6.16")
async def test_a_backup_brings_no_live_file_into_memory(system: System) -> None:
    with closing(sqlite3.connect(system.notes)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    dropped(system.notes)
    async with system.engine() as engine:
        await engine.create(ON_DEMAND)
    assert cached(system.notes) < 2 * MEBIBYTE


@given(st.binary(max_size=20_000), st.integers(0, 9_000))
def test_bytes_are_the_same_past_the_cache(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int
) -> None:
    path = tmp_path_factory.mktemp("past") / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        assert page_cache.write(descriptor, data, offset) == len(data)
        room = memoryview(bytearray(len(data) + 1))
        assert page_cache.read_into(descriptor, room, offset) == len(data)
        assert room[:-1] == data
        page_cache.drop(descriptor, offset, len(data))
        assert path.read_bytes()[offset:] == data
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("dear", [0.0, 1.0], ids=["dear", "not dear"])
@given(st.lists(st.binary(max_size=9_000), max_size=40))
def test_what_is_written_is_the_same_whatever_memory_costs(
    tmp_path_factory: pytest.TempPathFactory, dear: float, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("new") / "file"
    path.touch()
    os.truncate(path, sum(map(len, parts)))
    descriptor, file, at = os.open(path, os.O_WRONLY), page_cache.SharedWriter(), 0
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(page_cache, "_DEAR", dear)
            for part in parts:
                file.write(descriptor, memoryview(part), at)
                at += len(part)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"".join(parts)


def test_to_write_nothing_brings_nothing_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the kernel a range of no length is all that follows."""
    asked: list[object] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: asked.append(words))
    (tmp_path / "file").write_bytes(bytes(MEBIBYTE))
    descriptor, file = os.open(tmp_path / "file", os.O_WRONLY), page_cache.SharedWriter()
    try:
        file.write(descriptor, memoryview(b""), 4096)
        assert asked == []
        file.write(descriptor, memoryview(b"bytes"), 4096)
        assert asked == [(descriptor, 4096, 5, os.POSIX_FADV_WILLNEED)]
    finally:
        os.close(descriptor)


def test_a_filesystem_that_cannot_do_it_reads_and_writes_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_flags(call: Callable[..., int]) -> Callable[..., int]:
        def called(descriptor: int, buffers: list[memoryview], offset: int, flags: int) -> int:
            return refuse() if flags else call(descriptor, buffers, offset)

        return called

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(page_cache, "_FLAGS", 0x80)
    monkeypatch.setattr(os, "preadv", without_flags(os.preadv))
    monkeypatch.setattr(os, "pwritev", without_flags(os.pwritev))
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert page_cache.write(descriptor, b"bytes", 0) == 5
        room = memoryview(bytearray(5))
        assert page_cache.read_into(descriptor, room, 0) == 5
        assert bytes(room) == b"bytes"
        page_cache.drop(descriptor, 0, 5)
    finally:
        os.close(descriptor)


def test_what_else_the_system_says_is_heard(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            page_cache.read_into(descriptor, memoryview(bytearray(1)), 0)
    finally:
        os.close(descriptor)
