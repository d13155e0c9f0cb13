"""The content digest of an image is the same whether SQLite hands over the pages or not."""

from pathlib import Path

import apsw
import pytest

from mcp_backup.sources import sqlite, sqlite_digest
from mcp_backup.sources.digest import of_path
from tests.sources.databases import database, make

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
