"""Excluded tables: empty in the image, their bytes nowhere in it, everything else as it was."""

from pathlib import Path

import pytest

from mcp_backup.errors import SettingsInvalid, SourceUnreadable
from mcp_backup.sources import sqlite
from tests.sources.databases import Taking, ask, database, make

_SECRET = b"SECRET"
_SCHEMA = """
CREATE TABLE open(id INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE Secret(id INTEGER PRIMARY KEY, text TEXT, parent REFERENCES open(id));
CREATE INDEX secret_text ON Secret(text);
CREATE TABLE child(id INTEGER PRIMARY KEY, secret REFERENCES Secret(id));
CREATE VIEW seen AS SELECT text FROM Secret;
CREATE TRIGGER kept AFTER DELETE ON Secret BEGIN INSERT INTO open(text) VALUES (old.text); END;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
 INSERT INTO open SELECT i, 'open ' || i FROM n;
INSERT INTO Secret SELECT id, 'SECRET' || id || hex(randomblob(60)), id FROM open;
INSERT INTO child SELECT id, id FROM Secret;
ANALYZE;
PRAGMA foreign_keys = ON"""
_WORDS = """
CREATE VIRTUAL TABLE own USING fts5(text);
INSERT INTO own SELECT text FROM Secret;
CREATE VIRTUAL TABLE over USING fts5(text, content='Secret', content_rowid='id');
INSERT INTO over(rowid, text) SELECT id, text FROM Secret;
CREATE VIRTUAL TABLE bare USING fts5(text, content='');
INSERT INTO bare(rowid, text) SELECT id, text FROM Secret;
CREATE VIRTUAL TABLE older USING fts4(text);
INSERT INTO older SELECT text FROM Secret;
CREATE VIRTUAL TABLE boxes USING rtree(id, x1, x2);
INSERT INTO boxes SELECT id, id, id FROM Secret"""


def _captured(tmp_path: Path, live: Path, *tables: str) -> Taking:
    (tmp_path / "staged").mkdir()
    taking = Taking(tmp_path / "staged")
    evidence = taking.take(database(live, exclude_tables=list(tables)))
    taking.scratch.rmdir()  # and nothing of it was left there
    assert sqlite.examine(tmp_path / "staged", evidence) == []
    assert evidence.facts["excluded"]
    return taking


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_excluded_table_is_empty_and_its_bytes_are_gone(tmp_path: Path, mode: str) -> None:
    live = make(tmp_path / "live.db", _SCHEMA, mode)
    before = live.read_bytes()
    image = _captured(tmp_path, live, "secret").image
    assert _SECRET in before
    assert _SECRET not in image.read_bytes()
    assert ask(image, "SELECT count(*) FROM Secret") == 0
    assert ask(image, "SELECT count(*) FROM open") == 3_000  # no trigger ran
    assert ask(image, "SELECT count(*) FROM child") == 3_000  # no key was acted on
    assert ask(image, "SELECT count(*) FROM sqlite_schema") == ask(
        live, "SELECT count(*) FROM sqlite_schema"
    )
    assert live.read_bytes() == before


def test_other_pages_stay_where_they_are_and_lose_only_what_nobody_owns(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", _SCHEMA)
    old, new = _pages(live), _pages(_captured(tmp_path, live, "Secret").image)
    assert len(new) == len(old)
    of_others = [at for at, page in enumerate(old) if at and b"open 1" in page]
    assert len(of_others) > 5
    for at in of_others:
        assert all(now in (0, was) for was, now in zip(old[at], new[at], strict=True))


def _pages(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return [content[at : at + 4096] for at in range(0, len(content), 4096)]


def test_what_was_deleted_long_ago_is_found_nowhere(tmp_path: Path) -> None:
    script = (
        _SCHEMA
        + ";\nPRAGMA foreign_keys = OFF;\nPRAGMA secure_delete = OFF;\nDROP TRIGGER kept"
        + ";\nDELETE FROM Secret WHERE id > 100"  # whose pages other tables may take over
        + ";\nINSERT INTO open(text) SELECT 'open again' FROM open"
    )
    live = make(tmp_path / "live.db", script)
    assert live.read_bytes().count(_SECRET) > 1_000
    image = _captured(tmp_path, live, "Secret").image
    assert _SECRET not in image.read_bytes()


def test_the_words_of_excluded_rows_leave_every_full_text_index(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", _SCHEMA + ";" + _WORDS)
    image = _captured(tmp_path, live, "Secret", "own", "bare", "older", "boxes").image
    content = image.read_bytes()
    assert _SECRET not in content
    assert _SECRET.lower() + b"1" not in content
    for table in ("own", "over", "older", "boxes"):
        assert ask(image, f"SELECT count(*) FROM {table}") == 0
    assert ask(image, "SELECT count(*) FROM bare WHERE bare MATCH 'secret*'") == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("nothing", "there are: Secret, bare, boxes, child, older, open, over, own"),
        ("seen", "which is a view"),
        ("own_data", "which is a part of a virtual table"),
        ("sqlite_stat1", "there is no such table"),
    ],
)
def test_what_cannot_be_excluded_is_refused(tmp_path: Path, table: str, words: str) -> None:
    live = make(tmp_path / "live.db", _SCHEMA + ";" + _WORDS)
    taking = Taking(tmp_path)
    with pytest.raises(SettingsInvalid, match=words):
        taking.take(database(live, exclude_tables=[table]))
    assert list(taking.scratch.iterdir()) == []


def test_a_virtual_table_of_an_unknown_module_cannot_be_excluded(tmp_path: Path) -> None:
    live = make(
        tmp_path / "live.db",
        "CREATE TABLE t(id INTEGER);\nPRAGMA writable_schema = ON;\n"
        "INSERT INTO sqlite_schema VALUES"
        " ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING vec0(x)')",
    )
    taking = Taking(tmp_path)
    with pytest.raises(SourceUnreadable, match="'vectors' cannot be emptied: no such module"):
        taking.take(database(live, exclude_tables=["vectors"]))
    taking.take(database(live))
    assert ask(taking.image, "SELECT count(*) FROM sqlite_schema") == 2
