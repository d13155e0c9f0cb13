"""What makes a copy suspect, and what does not."""

from collections.abc import Mapping
from typing import Any

import pytest

from mcp_backup.manifest import Manifest, SourceRecord
from mcp_backup.outline import Outline
from mcp_backup.sources.source import Component, Evidence, FileEvidence, Finding
from mcp_backup.suspicion import losses

FTS5 = {"search_data": 400, "search_idx": 300, "search_docsize": 500, "search_config": 1}
FTS4 = {"old_segments": 400, "old_segdir": 300, "old_stat": 200, "old_docsize": 500}


def database(tables: Mapping[str, int], **facts: Any) -> SourceRecord:
    return record("sqlite", Component.DATABASES, {"tables": tables, **facts}, [1 << 20])


def project(*sizes: int) -> SourceRecord:
    return record("files", Component.CONFIG, {"entries": {}}, sizes)


def record(
    kind: str, component: Component, facts: Mapping[str, Any], sizes: Any, **more: Any
) -> SourceRecord:
    files = tuple(FileEvidence(f"{n}", f"/live/{n}", size, "") for n, size in enumerate(sizes))
    evidence = Evidence("engine", files, facts)
    return SourceRecord(
        "it", component, kind, "stored", "/live", "tree", 0, 0, 0, 0.0, evidence, None, **more
    )


def outlined(now: SourceRecord) -> tuple[bool, bool]:
    manifest = Manifest("backup_1", "full", "completed", "", "", "", (now,))
    (source,) = Outline.of(manifest).sources
    return source.proven, source.suspect


def found(now: SourceRecord, before: SourceRecord | None) -> list[tuple[str, str]]:
    return [(finding.subject, finding.message) for finding in losses(now, before)]


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        (
            {"notes": 9, "tags": 500},
            {"notes": 100, "tags": 500},
            [("notes", "9 rows, 100 rows in the backup before")],
        ),
        (
            {"tags": 500},
            {"notes": 150, "tags": 500},
            [("notes", "gone, 150 rows in the backup before")],
        ),
        ({"notes": 49}, {"notes": 100}, [("it", "49 rows, 100 in the backup before")]),
        ({}, {"notes": 1}, [("it", "0 tables, 1 in the backup before")]),
        ({"a": 1, "x": 1}, {"a": 1, "b": 1, "c": 1}, [("it", "1 tables, 3 in the backup before")]),
    ],
)
def test_a_database_that_lost_most_of_its_rows_or_tables_is_suspect(
    now: dict[str, int], before: dict[str, int], told: list[tuple[str, str]]
) -> None:
    assert found(database(now), database(before)) == told


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ({"notes": 100}, {"notes": 100}),
        ({"notes": 10**6}, {"notes": 3}),
        ({"notes": 50}, {"notes": 100}),
        ({"jobs": 0, "notes": 500}, {"jobs": 99, "notes": 500}),  # a queue that was worked off
        ({"notes": 500, **dict.fromkeys(FTS5, 1)}, {"notes": 500, **FTS5, "search_docsize": 1}),
        ({"notes": 500, **dict.fromkeys(FTS4, 1)}, {"notes": 500, **FTS4, "old_docsize": 1}),
        ({"notes": 500, "sqlite_stat1": 0}, {"notes": 500, "sqlite_stat1": 900}),
        ({}, {}),
    ],
)
def test_what_rises_and_falls_by_itself_is_not_suspect(
    now: dict[str, int], before: dict[str, int]
) -> None:
    assert found(database(now), database(before)) == []


def test_a_full_text_index_that_lost_its_documents_is_suspect() -> None:
    before = {"notes": 500, **FTS5}
    assert found(database({**before, "search_docsize": 0}), database(before)) == [
        ("search_docsize", "0 rows, 500 rows in the backup before")
    ]


def test_tables_that_the_settings_keep_empty_are_not_suspect() -> None:
    before = database({"notes": 100, "cache": 9000})
    assert found(database({"notes": 100, "cache": 0}, excluded=["cache"]), before) == []


def test_a_project_that_lost_most_of_its_files_or_bytes_is_suspect() -> None:
    assert found(project(10), project(10, 10, 10, 10)) == [
        ("it", "1 files, 4 in the backup before")
    ]
    assert found(project(0, 10), project(1 << 20, 10)) == [
        ("it", "10 bytes, 1048586 in the backup before")
    ]
    assert found(project(10, 10), project(10, 10, 10, 10)) == []
    assert found(project(), project(10, 10, 10)) == []


def test_what_examining_found_is_suspect_with_nothing_before() -> None:
    wrong = Finding("integrity", "notes", "row 3 missing from index")
    now = record("sqlite", Component.DATABASES, {}, [1], verified=True, findings=(wrong,))
    assert outlined(now) == (False, True)  # proven, suspect
    assert outlined(record("sqlite", Component.DATABASES, {}, [1], verified=True)) == (True, False)
    assert losses(database({"notes": 0}), None) == ()


def test_a_source_that_failed_or_changed_its_kind_is_not_compared() -> None:
    before = database({"notes": 1000})
    failed = SourceRecord(
        "it", Component.DATABASES, "sqlite", "failed", "/live", "", 0, 0, 0, 0.0, None, None
    )
    assert losses(failed, before) == ()
    assert losses(before, failed) == ()
    other = record("duckdb", Component.DATABASES, {"tables": {"notes": 0}}, [1])
    assert losses(other, before) == ()


@pytest.mark.parametrize("odd", [{"notes": "many"}, {"notes": None}, {"notes": True}, [], 7])
def test_a_backup_before_whose_facts_are_none_says_nothing(odd: Any) -> None:
    """A stranger wrote it; the backup that is being made now must not end with it."""
    assert found(database({"notes": 9}), database(odd)) == []
    assert found(database({"notes": 500}, excluded=7), database({"notes": 500})) == []
