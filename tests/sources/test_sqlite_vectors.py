"""Vector tables are examined without their extension: each kind of damage is found, and named."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from mcp_backup.sources import sqlite
from mcp_backup.sources.source import Evidence
from tests.sources.vectors import make_vectors


def told(directory: Path, *damage: str, evidence: Evidence | None = None) -> list[str]:
    """What is found in a database with a vector table, after that was done to it."""
    path = directory / "image.db"
    make_vectors(path)
    with closing(apsw.Connection(str(path))) as connection:
        for statement in damage:
            connection.execute(statement)
    found = sqlite.examine(directory, evidence)
    assert {(each.code, each.subject) for each in found} <= {("vectors", "memories")}
    return [each.message for each in found]


def test_a_vector_table_with_rows_that_came_and_went_is_well(tmp_path: Path) -> None:
    assert told(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "UPDATE memories_vector_chunks00 SET vectors = substr(vectors, 5) WHERE rowid = 2",
            "memories_vector_chunks00, chunk 2: expected 16 vectors of 16 bytes, got 252 bytes",
        ),
        (
            "UPDATE memories_vector_chunks01 SET vectors = zeroblob(64) WHERE rowid = 1",
            "memories_vector_chunks01, chunk 1: expected 16 vectors of 2 bytes, got 64 bytes",
        ),
        (
            "DELETE FROM memories_vector_chunks01 WHERE rowid = 3",
            "memories_vector_chunks01 has nothing of chunk 3",
        ),
        (
            "INSERT INTO memories_vector_chunks00(rowid, vectors) VALUES (99, zeroblob(256))",
            "memories_vector_chunks00 has something of chunk 99, which is not there",
        ),
        (
            "DELETE FROM memories_metadatachunks00 WHERE rowid = 1",
            "memories_metadatachunks00 has nothing of chunk 1",
        ),
        (
            "UPDATE memories_chunks SET validity = zeroblob(2) WHERE chunk_id = 1",
            "chunk 1: 0 places are taken, by 13 rows",
        ),
        (
            "UPDATE memories_chunks SET validity = x'ffff' WHERE chunk_id = 1",
            "chunk 1: 16 places are taken, by 13 rows",
        ),
        (
            "UPDATE memories_chunks SET validity = zeroblob(1) WHERE chunk_id = 4",
            "chunk 4 has 16 places: expected 2 and 128 bytes of validity and rowids, got 1 and 128",
        ),
        (
            "UPDATE memories_chunks SET size = 7 WHERE chunk_id = 4",
            "chunk 4 is said to have 7 places",
        ),
        (
            "UPDATE memories_chunks SET rowids = zeroblob(128) WHERE chunk_id = 2",
            "row 4 is at place 1 of chunk 2, where row 0 is",
        ),
        ("DELETE FROM memories_rowids WHERE rowid = 2", "places are taken, by"),
        (
            "UPDATE memories_rowids SET chunk_offset = 99 WHERE rowid = 3",
            "row 3 is at place 99 of chunk 1, which is not taken",
        ),
        (
            "UPDATE memories_rowids SET chunk_id = 77 WHERE rowid IN (2, 3)",
            "2 rows are said to be in chunk 77, which is not there",
        ),
        ("DROP TABLE memories_chunks", "shadow tables are missing: memories_chunks"),
        (
            "ALTER TABLE memories_chunks RENAME COLUMN validity TO v",
            "its shadow tables are not sqlite-vec's",
        ),
    ],
)
def test_each_kind_of_damage_to_a_vector_table_is_found_and_named(
    tmp_path: Path, damage: str, message: str
) -> None:
    found = told(tmp_path, damage)
    assert any(message in fact for fact in found), found


def test_a_vector_table_that_is_excluded_in_part_is_not_examined(tmp_path: Path) -> None:
    left_out = Evidence("SQLite", (), {"excluded": ["memories_rowids"]})
    path = tmp_path / "image.db"
    make_vectors(path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("DELETE FROM memories_rowids")
    assert [each.code for each in sqlite.examine(tmp_path, left_out)].count("vectors") == 0
