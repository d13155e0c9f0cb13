"""Examining a staged copy finds what is wrong with it, and leaves it as it is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from mcp_backup.errors import SourceMissing, SourceUnreadable
from mcp_backup.sources import sqlite
from mcp_backup.sources.source import Evidence
from tests.sources.databases import Taking, ask_live, database, family, fill, holding, make

_SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT UNIQUE);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
 INSERT INTO t SELECT i, 'text ' || i FROM n;
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES t(id));
INSERT INTO child VALUES (1, 1), (2, 999999);
CREATE VIRTUAL TABLE f5 USING fts5(text);
INSERT INTO f5 SELECT text FROM t;
CREATE VIRTUAL TABLE f4 USING fts4(text);
INSERT INTO f4 SELECT text FROM t"""


class Staged:
    """A capture of a database, staged, with its evidence."""

    def __init__(self, tmp_path: Path, mode: str = "wal", schema: str = _SCHEMA) -> None:
        self.directory = tmp_path / "staged"
        self.directory.mkdir()
        live = make(tmp_path / "live.db", schema, mode)
        taking = Taking(self.directory)
        self.evidence: Evidence = taking.take(database(live))
        taking.scratch.rmdir()
        self.image = taking.image

    def change(self, *statements: str) -> None:
        connection = apsw.Connection(str(self.image))
        connection.pragma("journal_mode", "delete")
        for statement in statements:
            for _ in connection.execute(statement):
                pass
        connection.close()

    def codes(self) -> set[tuple[str, str]]:
        found = sqlite.examine(self.directory, self.evidence)
        return {(finding.code, finding.subject) for finding in found}


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_whole_copy_has_no_findings_and_stays_as_it_is(tmp_path: Path, mode: str) -> None:
    staged = Staged(tmp_path, mode)
    before, names = staged.image.read_bytes(), os.listdir(staged.directory)
    assert staged.evidence.facts["foreign_key_violations"] == 1  # the source had it all along
    assert sqlite.examine(staged.directory, staged.evidence) == []
    assert staged.image.read_bytes() == before
    assert os.listdir(staged.directory) == names


def test_violations_that_were_not_counted_at_the_capture_are_not_held_against_the_copy(
    tmp_path: Path,
) -> None:
    staged = Staged(tmp_path)
    facts = {k: v for k, v in staged.evidence.facts.items() if k != "foreign_key_violations"}
    assert sqlite.examine(staged.directory, replace(staged.evidence, facts=facts)) == []


def _flip(staged: Staged) -> None:
    content = bytearray(staged.image.read_bytes())
    at = content.index(b"text 1500")
    content[at] ^= 1
    staged.image.write_bytes(content)


def _cut(staged: Staged) -> None:
    os.truncate(staged.image, staged.image.stat().st_size // 2)


def _garbage(staged: Staged) -> None:
    staged.image.write_bytes(os.urandom(20_000))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_flip, ("integrity", "image.db")),
        (_cut, ("integrity", "image.db")),
        (_garbage, ("integrity", "image.db")),
        (lambda s: s.change("DELETE FROM t WHERE id = 7"), ("row-count", "t")),
        (lambda s: s.change("DELETE FROM t WHERE id = 1"), ("foreign-keys", "child")),
        (lambda s: s.change("DROP TABLE child"), ("row-count", "child")),
        (lambda s: s.change("CREATE INDEX more ON t(text)"), ("schema", "image.db")),
        (lambda s: s.change("PRAGMA user_version = 7"), ("pragma", "image.db")),
        (
            lambda s: s.change("UPDATE f5_content SET c0 = 'other' WHERE id = 9"),
            ("fts", "image.db"),
        ),
        (
            lambda s: s.change("UPDATE f4_content SET c0text = 'other' WHERE docid = 9"),
            ("fts", "image.db"),
        ),
    ],
)
def test_each_kind_of_difference_is_found(
    tmp_path: Path, damage: Callable[[Staged], None], found: tuple[str, str]
) -> None:
    staged = Staged(tmp_path)
    damage(staged)
    assert found in staged.codes()


def _doubled(*values: Any) -> Any:
    return values[0] * 2


def test_an_index_over_a_function_that_only_the_program_knows_is_no_finding(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    connection = apsw.Connection(str(live))
    connection.create_scalar_function("ours", _doubled, 1, deterministic=True)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER CHECK (ours(n) > 0))")
    connection.execute("CREATE INDEX doubled ON t(ours(n))")
    with connection:
        connection.executemany("INSERT INTO t(n) VALUES (?)", [(n,) for n in range(1, 500)])
    connection.close()
    (tmp_path / "staged").mkdir()
    taking = Taking(tmp_path / "staged")
    evidence = taking.take(database(live))
    taking.scratch.rmdir()
    assert evidence.facts["tables"] == {"t": 499}
    assert sqlite.examine(tmp_path / "staged", evidence) == []


def test_without_evidence_a_copy_is_examined_for_itself(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    make(tmp_path / "staged" / "any.db", fill(100))
    assert sqlite.examine(tmp_path / "staged", None) == []


@pytest.mark.parametrize("names", [(), ("one.db", "two.db")])
def test_a_directory_without_exactly_one_file_is_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        make(tmp_path / name, fill(1))
    with pytest.raises(SourceUnreadable, match=f"holds {len(names)} files"):
        sqlite.examine(tmp_path, None)


def test_the_content_digest_ignores_what_a_copy_may_change(tmp_path: Path) -> None:
    one = make(tmp_path / "one.db", fill(2_000), "delete")
    digest = sqlite.content_digest("notes", one)
    ask_live(one, "PRAGMA journal_mode=wal")
    assert sqlite.content_digest("notes", one) == digest
    before = sorted(path.name for path in tmp_path.iterdir())
    assert before == ["one.db"]  # and left no side files


def test_the_content_digest_sees_each_change(tmp_path: Path) -> None:
    one = make(tmp_path / "one.db", fill(2_000), "wal")
    digest = sqlite.content_digest("notes", one)
    with holding(one, "PRAGMA wal_autocheckpoint=0", "UPDATE t SET text = 'x' WHERE id = 1000"):
        before = family(one)
        assert sqlite.content_digest("notes", one) != digest
        assert family(one) == before


def test_soundness_is_told_without_touching_anything(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", fill(2_000), "wal")
    assert sqlite.is_sound(database(live))
    assert os.listdir(tmp_path) == ["live.db"]
    os.truncate(live, 9_000)
    assert not sqlite.is_sound(database(live))
    live.write_bytes(b"no database at all")
    assert not sqlite.is_sound(database(live))
    live.unlink()
    with pytest.raises(SourceMissing):
        sqlite.is_sound(database(live))
