"""Captures of live SQLite databases: whole, of one moment, and harmless."""

import os
import tempfile
from pathlib import Path

import apsw
import pytest

from mcp_backup.arena import Arena
from mcp_backup.errors import SourceBusy, SourceMissing, SourceUnreadable
from mcp_backup.sources import sqlite
from mcp_backup.sources.capture import captured
from mcp_backup.sources.digest import of_path
from mcp_backup.sources.source import Entry
from mcp_backup.sources.sqlite_reading import snapshot
from tests.sources import writer
from tests.sources.databases import (
    HOT,
    Taking,
    ask,
    crashed,
    database,
    family,
    fill,
    holding,
    is_root,
    make,
    taken,
    written,
)

CAPTURES_PER_MODE = 100  # of 200 in all


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_of_200_captures_under_a_heavy_writer_none_is_torn(tmp_path: Path, mode: str) -> None:
    live = tmp_path / "live.db"
    writer.prepare(str(live), mode)
    taking, rows = Taking(tmp_path), set()
    with written(live, mode) as writing:
        for _ in range(CAPTURES_PER_MODE):
            evidence = taking.take(database(live))
            assert ask(taking.image, writer.PROMISES) == 1
            assert ask(taking.image, "PRAGMA integrity_check") == "ok"
            counted = evidence.facts["tables"]["ledger"]
            assert counted == ask(taking.image, "SELECT rows FROM counter")
            assert evidence.files[0].digest == of_path(taking.image)
            rows.add(counted)
    assert len(rows) > CAPTURES_PER_MODE * 0.8  # the writer was not standing still
    assert writing.lived["errors"] == []
    assert writing.lived["longest"] < 5.0  # the default timeout of many a program


async def test_a_capture_through_a_worker_is_the_database(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(20_000), "wal")
    live.chmod(0o640)
    seen = await taken(database(live), tmp_path)
    assert ask(seen.image, "SELECT count(*) FROM t") == 20_000
    assert seen.entry.path == "live.db"
    assert (seen.entry.mode, seen.entry.layout, seen.entry.page_size) == (0o640, "image", 4096)
    assert seen.entry.size == seen.end.size == seen.image.stat().st_size
    assert seen.end.digest == seen.evidence.files[0].digest == of_path(seen.image)
    assert seen.evidence.files[0].original == str(live)
    assert seen.evidence.facts["tables"] == {"t": 20_000}
    assert seen.evidence.facts["journal_mode"] == "wal"


async def test_only_the_first_page_differs_from_the_live_file(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(5_000))
    seen = await taken(database(live), tmp_path)
    assert seen.image.read_bytes()[4096:] == live.read_bytes()[4096:]


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("page_size", [512, 1024, 8192, 65536])
def test_every_page_size_comes_whole(tmp_path: Path, mode: str, page_size: int) -> None:
    live = make(tmp_path / "live.db", fill(8_000), mode, page_size)
    taking = Taking(tmp_path)
    evidence = taking.take(database(live))
    assert ask(taking.image, "PRAGMA integrity_check") == "ok"
    assert evidence.facts["page_size"] == page_size == ask(taking.image, "PRAGMA page_size")


def test_what_is_only_in_the_wal_is_captured(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10), "wal")
    with holding(live, "PRAGMA wal_autocheckpoint=0", "INSERT INTO t VALUES (11, 'late')"):
        before = family(live)
        taking = Taking(tmp_path)
        taking.take(database(live))
        assert ask(taking.image, "SELECT count(*) FROM t") == 11
        assert family(live) == before


def test_a_wal_left_by_a_crash_is_captured_and_left_alone(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10), "wal")
    crashed(live, "INSERT INTO t VALUES (11, 'late')")
    before = family(live)
    assert "-wal" in before
    taking = Taking(tmp_path)
    taking.take(database(live))
    assert ask(taking.image, "SELECT count(*) FROM t") == 11
    assert family(live) == before


def test_a_transaction_that_a_crash_left_unfinished_is_not_captured(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(5_000))
    crashed(live, *HOT)
    before = family(live)
    assert "-journal" in before
    assert ask(live, "SELECT count(*) FROM t WHERE text LIKE 'torn%'") > 0
    taking = Taking(tmp_path)
    evidence = taking.take(database(live))
    assert ask(taking.image, "SELECT count(*) FROM t WHERE text LIKE 'torn%'") == 0
    assert ask(taking.image, "PRAGMA integrity_check") == "ok"
    assert "unfinished" in evidence.notes[0]
    assert family(live) == before


@pytest.mark.skipif(not is_root(), reason="needs two users")
def test_reading_another_users_database_leaves_no_files_of_ours_beside_it(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10), "wal")
    taking = Taking(tmp_path)
    outer = Path(tempfile.gettempdir())
    ours = [path for path in tmp_path.parents if path.is_relative_to(outer) and path != outer]
    for directory in (tmp_path, *ours, taking.scratch):
        directory.chmod(0o777)
    os.seteuid(65534)
    try:
        taking.take(database(live))
    finally:
        os.seteuid(0)
    assert ask(taking.image, "SELECT count(*) FROM t") == 10
    assert not list(tmp_path.glob("live.db-*"))


def test_a_locked_database_is_busy_and_its_holder_named(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10))
    with (
        holding(live, "BEGIN EXCLUSIVE") as holder,
        pytest.raises(SourceBusy, match=rf"pid {holder.pid}\)"),
        snapshot("notes", live, tmp_path, wait=0.2),
    ):
        pass


async def test_no_lock_outlives_the_copy_of_a_rollback_database(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10))
    arena = Arena.create(1)
    try:
        async with captured(database(live), arena, tmp_path) as capture:
            assert isinstance(await capture.next(), Entry)  # and no slot to put its bytes in
            with holding(live, "BEGIN EXCLUSIVE"):
                pass
    finally:
        arena.close()


def test_a_collation_that_only_the_program_knows_does_not_stop_a_capture(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    connection = apsw.Connection(str(live))
    connection.create_collation("ours", lambda one, other: (one < other) - (one > other))
    connection.execute("CREATE TABLE t(text TEXT COLLATE ours UNIQUE)")
    with connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(f"{i}",) for i in range(500)])
    connection.close()
    (tmp_path / "staged").mkdir()
    taking = Taking(tmp_path / "staged")
    evidence = taking.take(database(live))
    assert evidence.facts["tables"] == {"t": 500}
    taking.scratch.rmdir()
    assert sqlite.examine(tmp_path / "staged", evidence) == []


def _random(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def _newer(path: Path) -> None:
    content = bytearray(make(path, fill(10)).read_bytes())
    content[47] = 5
    path.write_bytes(content)


def _newer_pages(path: Path) -> None:
    content = bytearray(make(path, fill(10)).read_bytes())
    content[18:20] = b"\3\3"
    path.write_bytes(content)


def _cut(path: Path) -> None:
    make(path, fill(1_000))
    os.truncate(path, 20_000)


@pytest.mark.parametrize(
    ("lay", "error", "words"),
    [
        (lambda path: None, SourceMissing, "does not exist"),
        (Path.mkdir, SourceUnreadable, "is a directory"),
        (Path.touch, SourceUnreadable, r"is empty \(0 bytes\)"),
        (_random, SourceUnreadable, "is not an SQLite database, or is encrypted"),
        (_newer, SourceUnreadable, r"newer SQLite \(schema format 5\)"),
        (_newer_pages, SourceUnreadable, r"newer SQLite \(file format version 3\)"),
        (_cut, SourceUnreadable, "is damaged"),
    ],
)
async def test_what_is_no_database_is_refused_in_one_sentence(
    tmp_path: Path, lay: object, error: type[Exception], words: str
) -> None:
    live = tmp_path / "live.db"
    assert callable(lay)
    lay(live)
    there = live.exists()
    with pytest.raises(error, match=words) as caught:
        await taken(database(live), tmp_path)
    assert getattr(caught.value, "hint", "")
    assert live.exists() == there


def test_the_time_of_change_stands_still_while_the_content_does(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(10), "wal")
    taking = Taking(tmp_path)
    times = set()
    for _ in range(3):
        with snapshot("notes", live, tmp_path) as seen:
            times.add(sqlite._entry(database(live), seen).mtime_ns)
        taking.take(database(live))
        os.utime(live, ns=(0, live.stat().st_mtime_ns))
    assert len(times) == 1
    assert times == {live.stat().st_mtime_ns}


def test_a_database_whose_wal_is_in_the_file_is_read_as_that_file(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(5000), "wal")
    with holding(live, "INSERT INTO t(text) VALUES ('new')", "PRAGMA wal_checkpoint(TRUNCATE)"):
        taking = Taking(tmp_path)
        taking.take(database(live))
        assert taking.image.read_bytes() == live.read_bytes()


def test_what_is_only_in_the_wal_is_captured_too(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(5000), "wal")
    with holding(live, "INSERT INTO t(text) VALUES ('new')"):
        taking = Taking(tmp_path)
        taking.take(database(live))
        assert ask(taking.image, "SELECT count(*) FROM t") == 5001
        assert taking.image.read_bytes() != live.read_bytes()
