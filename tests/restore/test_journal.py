"""The journal: what was written is told again, and what a crash left of a line is not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mcp_backup.errors import RestoreError, UnknownPlan
from mcp_backup.restore.journal import (
    Begun,
    Journal,
    Target,
    directories,
    directory_of,
    read,
    restore_id,
)
from mcp_backup.sources.source import Component, SourceSpec
from tests.doubles import FrozenClock

SPEC = SourceSpec("notes", Component.DATABASES, "sqlite", "/data/notes.db", {"exclude_tables": []})
BEGUN = Begun(
    restore_id="restore_20261122_120000_01020304",
    purpose="restore",
    plan_id="plan_000000000000",
    backup_id="backup_20261122_110000",
    snapshot_id="ab" * 32,
    started=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
    targets=(Target(SPEC, 4096),),
)
KEY = "databases/notes"


def filled(restores: Path) -> Journal:
    journal = Journal.create(restores, BEGUN, FrozenClock())
    journal.append("new", target=KEY, signature={"": "image:new"})
    journal.append("kept", target=KEY, signature={"": "image:old"})
    journal.append("exchanging")
    journal.append("exchanged", target=KEY, notes=["a note"])
    return journal


def test_a_journal_tells_what_was_written(tmp_path: Path) -> None:
    record = filled(tmp_path).read()
    assert record.begun == BEGUN
    assert record.new == {KEY: {"": "image:new"}}
    assert record.kept == {KEY: {"": "image:old"}}
    assert record.exchanging
    assert record.exchanged == {KEY: ("a note",)}
    assert record.outcome is None
    assert not record.undoable


def test_cut_anywhere_it_tells_a_beginning_of_it_and_goes_on(tmp_path: Path) -> None:
    data = (filled(tmp_path / "whole").directory / "journal").read_bytes()
    first = data.index(b"\n") + 1
    for cut in range(first, len(data) + 1):
        directory = tmp_path / "cut" / BEGUN.restore_id
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "journal").write_bytes(data[:cut])
        lines = data[:cut].count(b"\n")
        record = read(directory)
        assert [bool(record.new), bool(record.kept), record.exchanging, bool(record.exchanged)] == [
            lines > n for n in range(1, 5)
        ]
        Journal(directory, FrozenClock()).append("ended", outcome="restored", message="")
        assert read(directory).outcome == "restored"


@pytest.mark.parametrize(
    "line", [b"not json", b"[]", b'{"event": "unknown"}', b'{"event": "exchanged"}', b"\0" * 80]
)
def test_a_line_that_is_not_ours_stops_the_reader(tmp_path: Path, line: bytes) -> None:
    journal = filled(tmp_path)
    with (journal.directory / "journal").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(RestoreError, match="cannot be read"):
        journal.read()


def test_a_journal_is_begun_once(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(FileExistsError):
        Journal.create(tmp_path, BEGUN, FrozenClock())


@pytest.mark.parametrize(
    "identity",
    ["../restore_20261122_120000_01020304", "restore_20261122_120000_01020304/..", "", "x", "\0"],
)
def test_an_id_that_is_a_path_is_an_unknown_restore(tmp_path: Path, identity: str) -> None:
    filled(tmp_path)
    with pytest.raises(UnknownPlan, match="no restore has the id"):
        directory_of(tmp_path, identity)


def test_ids_sort_by_time_and_foreign_names_are_passed_over(tmp_path: Path) -> None:
    later = restore_id(datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC), lambda size: b"\0" * size)
    filled(tmp_path)
    (tmp_path / later).mkdir()
    (tmp_path / "lost+found").mkdir()
    assert [path.name for path in directories(tmp_path)] == [BEGUN.restore_id, later]
