"""The content digest of an image is the same whether SQLite hands over the pages or not."""

from pathlib import Path

import apsw
import pytest

from mcp_backup.sources import sqlite, sqlite_digest
from mcp_backup.sources.digest import of_path
from mcp_backup.sources.sqlite_plain import readable
from mcp_backup.sources.sqlite_reading import snapshot
from tests.sources import writer
from tests.sources.databases import ask, ask_live, database, fill, holding, make, written

_ROWS = """
CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
 INSERT INTO t SELECT i, printf('%0400d', i * 7919) FROM n"""


def _image(path: Path, mode: str, page_size: int, rows: int) -> Path:
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA page_size={page_size}; PRAGMA journal_mode={mode}")
    connection.execute(_ROWS.format(rows=rows))
    connection.close()
    return path


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize(
    ("page_size", "rows"), [(512, 100), (4096, 7000), (65536, 3000), (4096, 0)]
)
def test_an_image_has_one_content_digest_whoever_reads_it(
    tmp_path: Path, mode: str, page_size: int, rows: int
) -> None:
    image = _image(tmp_path / "image", mode, page_size, rows)
    told = sqlite_digest.of_image(image)
    assert told.content == sqlite.content_digest("notes", image)
    assert told.bytes == of_path(image)


def test_an_undo_point_tells_the_digest_of_what_it_holds(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", _ROWS.format(rows=6000))
    kept = tmp_path / "kept"
    kept.mkdir()
    told = sqlite.keep(database(live), kept, tmp_path)
    assert told.content == sqlite.content_digest("notes", live)
    assert told.content == sqlite.content_digest("notes", kept / "image")
    assert told.content == sqlite_digest.of_image(kept / "image").content


def test_what_is_not_as_long_as_its_header_says_is_left_to_sqlite(tmp_path: Path) -> None:
    image = _image(tmp_path / "image", "delete", 4096, 500)
    with image.open("ab") as file:
        file.write(bytes(4096))
    assert sqlite_digest.of_image(image).content == ""
    assert sqlite_digest.of_image(image).bytes == of_path(image)
    (tmp_path / "text").write_text("no database")
    assert sqlite_digest.of_image(tmp_path / "text").content == ""
    (tmp_path / "none").touch()
    assert sqlite_digest.of_image(tmp_path / "none").content == ""


def test_a_file_that_is_all_there_is_stays_so_while_it_is_read(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(12_000), "wal")
    before = sqlite.content_digest("notes", live)
    offsets: list[int] = []

    def take(offset: int, _data: bytes | memoryview) -> None:
        if not offsets:
            ask_live(live, "UPDATE t SET text = 'later'")
            ask_live(live, "PRAGMA wal_checkpoint(PASSIVE)")
        offsets.append(offset)

    with holding(live, "SELECT count(*) FROM t"):
        with readable() as reader, snapshot("notes", live, tmp_path) as seen:
            assert reader.read(seen.connection, take) == before
        assert offsets[0] == 0  # SQLite would have handed it over last
        assert sqlite.content_digest("notes", live) != before


def test_what_lies_in_the_wal_alone_is_read_by_sqlite(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(2_000), "wal")
    offsets: list[int] = []
    change = ("PRAGMA wal_autocheckpoint = 0", "UPDATE t SET text = 'later' WHERE id % 7 = 0")
    with holding(live, *change):
        with readable() as reader, snapshot("notes", live, tmp_path) as seen:
            told = reader.read(seen.connection, lambda offset, _data: offsets.append(offset))
        assert offsets[-1] == 0
        ask_live(live, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert sqlite.content_digest("notes", live) == told


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_undo_points_taken_under_a_writer_are_of_one_moment(tmp_path: Path, mode: str) -> None:
    live = tmp_path / "live.db"
    writer.prepare(str(live), mode)
    with written(live, mode, 0.01):
        for number in range(15):
            kept = tmp_path / f"kept{number}"
            kept.mkdir()
            ask_live(live, "PRAGMA wal_checkpoint(TRUNCATE)")
            told = sqlite.keep(database(live), kept, tmp_path)
            assert ask(kept / "image", writer.PROMISES) == 1
            assert ask(kept / "image", "PRAGMA integrity_check") == "ok"
            assert told.content == sqlite_digest.of_image(kept / "image").content
