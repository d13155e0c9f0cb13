"""The exchange page by page: only what differs is written, under those who read and write."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_backup.sources import sqlite
from mcp_backup.sources.sqlite_exchange import _PIECE, _changed, exchange_pages
from mcp_backup.sources.sqlite_file import look
from mcp_backup.sources.sqlite_wal import End
from tests.sources.databases import ask, ask_live, database, fill, holding, make

_ROUNDS = 12
_READER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
print('ready', flush=True)
seen, sums = set(), 'SELECT count(*), count(DISTINCT generation), max(generation) FROM t'
ended = "SELECT 1 FROM sqlite_schema WHERE name = 'end'"
while len(seen) < 2 or not c.execute(ended).fetchone():
    c.execute('BEGIN')
    one, other = c.execute(sums).fetchone(), c.execute(sums).fetchone()
    c.execute('COMMIT')
    assert one == other and one[1] == 1, (one, other)
    assert c.execute('PRAGMA quick_check').fetchall() == [('ok',)]
    seen.add(one[2])
"""


def _staged(root: Path, name: str, script: str, mode: str = "wal", page_size: int = 4096) -> Path:
    (root / name).mkdir()
    make(root / name / "live.db", script, mode, page_size)
    return root / name


def _written(live: Path, staged: Path) -> int:
    """Exchange while somebody keeps the WAL from being checkpointed; return its bytes."""
    with holding(live, "BEGIN", "SELECT count(*) FROM t"):
        sqlite.place(database(live), staged)
        assert ask_live(live, "PRAGMA integrity_check") == "ok"
        return Path(f"{live}-wal").stat().st_size


def test_only_pages_that_differ_are_written(tmp_path: Path) -> None:
    staged = _staged(tmp_path, "staged", fill(20_000))
    live = tmp_path / "live.db"
    shutil.copy(staged / "live.db", live)
    with closing(apsw.Connection(str(live))) as connection:
        connection.execute("UPDATE t SET text = 'changed' WHERE id IN (1, 7000, 19000)")
    assert _written(live, staged) < 10 * 4200
    assert sqlite.content_digest("notes", live) == sqlite.content_digest(
        "notes", staged / "live.db"
    )


@pytest.mark.parametrize(("rows", "page_size"), [(0, 65536), (3000, 512), (20_000, 4096)])
def test_a_database_may_grow_and_shrink(tmp_path: Path, rows: int, page_size: int) -> None:
    many = _staged(tmp_path, "many", fill(21_000), page_size=page_size)
    few = _staged(tmp_path, "few", fill(rows), page_size=page_size)
    live = tmp_path / "live.db"
    shutil.copy(many / "live.db", live)
    for staged in (few, many):
        assert sqlite.place(database(live), staged) == []
        assert live.stat().st_size == (staged / "live.db").stat().st_size
        assert ask(live, "PRAGMA integrity_check") == "ok"
        assert ask(live, "SELECT count(*) FROM t") == ask(
            staged / "live.db", "SELECT count(*) FROM t"
        )


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_page_that_differs_is_found_however_long_the_files_are(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    page = 64 << 10
    contents = st.lists(st.sampled_from([0, 0, 0, 1]), min_size=1, max_size=3 * _PIECE // page)
    live, image = data.draw(contents), data.draw(contents)
    directory = tmp_path_factory.mktemp("compared")
    for name, pages in (("live", live), ("image", image)):
        (directory / name).write_bytes(b"".join(bytes([each]) * page for each in pages))
    wanted = {1} | {
        number
        for number, content in enumerate(image, 1)
        if number > len(live) or live[number - 1] != content
    }
    with open(directory / "live", "rb") as main, open(directory / "image", "rb") as new:
        end = End(0, page, len(live), b"", (0, 0))
        assert set(_changed(main.fileno(), new.fileno(), end, -1) or ()) == wanted


def _unopened() -> NoReturn:
    raise AssertionError("the live database was opened")


@pytest.mark.parametrize(
    "first", ["encoding = 'UTF-16le'", "auto_vacuum = 1", "auto_vacuum = 2", "page_size = 8192"]
)
def test_what_open_connections_would_not_notice_is_left_to_sqlite(
    tmp_path: Path, first: str
) -> None:
    image, live = tmp_path / "image", make(tmp_path / "live.db", fill(500), "wal")
    with closing(apsw.Connection(str(image))) as connection:
        connection.execute(f"PRAGMA {first}; CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT)")
    assert not exchange_pages(look("notes", live), image, _unopened)


def test_what_is_not_whole_is_left_to_sqlite(tmp_path: Path) -> None:
    image, live = make(tmp_path / "image", fill(500)), make(tmp_path / "live.db", fill(9), "wal")
    with image.open("ab") as file:
        file.write(b"more")
    assert not exchange_pages(look("notes", live), image, _unopened)
    image.write_bytes(b"")
    assert not exchange_pages(look("notes", live), image, _unopened)


def test_readers_see_one_database_or_the_other_however_often_it_is_exchanged(
    tmp_path: Path,
) -> None:
    table = "CREATE TABLE t(id INTEGER PRIMARY KEY, generation, text);\n"
    rows = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
        " INSERT INTO t SELECT i, {}, hex(randomblob(60)) FROM n;\n"
        "CREATE INDEX by ON t(generation, text)"
    )
    places = [
        _staged(tmp_path, "one", table + rows.format(1500, 1)),
        _staged(tmp_path, "other", table + rows.format(1800, 2)),
        _staged(tmp_path, "last", table + rows.format(900, 1) + ";\nCREATE TABLE end(x)"),
    ]
    live = tmp_path / "live.db"
    shutil.copy(places[0] / "live.db", live)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", _READER, str(live)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    _exchange_under(readers, live, places)
    assert ask_live(live, "PRAGMA integrity_check") == "ok"


def _exchange_under(
    readers: Sequence[subprocess.Popen[bytes]], live: Path, places: Sequence[Path]
) -> None:
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"ready\n"
    for number in range(_ROUNDS):
        sqlite.place(database(live), places[number % 2])
    for reader in readers:  # those who wait for the end must have seen both
        while reader.poll() is None:
            for place in (places[0], places[1], places[2]):
                sqlite.place(database(live), place)
        _, errors = reader.communicate()
        assert reader.returncode == 0, errors.decode()


def test_an_exchange_waits_for_a_checkpoint_and_then_goes_the_other_way(tmp_path: Path) -> None:
    staged = _staged(tmp_path, "staged", fill(300))
    live = make(tmp_path / "live.db", fill(200), "wal")
    with holding(live, "SELECT count(*) FROM t"):
        program = (
            "import fcntl, sys\n"
            "f = open(sys.argv[1], 'r+b')\n"
            "fcntl.lockf(f, fcntl.LOCK_EX, 1, 121)\n"
            "print('ready', flush=True)\n"
            "sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, f"{live}-shm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as checkpointer:
            assert checkpointer.stdout is not None
            assert checkpointer.stdout.readline() == b"ready\n"
            sqlite.place(database(live), staged)
            assert ask_live(live, "SELECT count(*) FROM t") == 300
            checkpointer.kill()
