"""What is captured of a DuckDB source: one proven state of each file, or an error."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_backup.arena import Arena
from mcp_backup.errors import SettingsInvalid, SourceMissing, SourceUnreadable, SourceUnstable
from mcp_backup.sources import duckdb as kind
from mcp_backup.sources import duckdb_file
from mcp_backup.sources.capture import captured
from mcp_backup.sources.duckdb_copy import Patience, Reader
from tests.duckdb.ducks import family, holding, left_open, make, run, source, stage, taken
from tests.sources.databases import taken as taken_by_worker


def newer(path: Path) -> Path:
    """Make a database look as if a newer DuckDB had written it: another version, sealed anew."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 12, 1000)
    struct.pack_into("<Q", content, 0, duckdb_file._checksum(bytes(content[8:4096])))
    path.write_bytes(content)
    return path


async def test_a_closed_database_is_captured_as_it_is_by_a_worker(tmp_path: Path) -> None:
    live = make(tmp_path / "live" / "memories.duckdb")
    before = family(live)
    found = await taken_by_worker(source(live), tmp_path)
    assert found.image.read_bytes() == before["memories.duckdb"]
    assert (found.entry.layout, found.entry.lead) == ("image", 12288)
    facts = found.evidence.facts
    assert facts["tables"] == {"notes": 2000}
    assert facts["columns"] == {"notes": [["id", "INTEGER"], ["body", "VARCHAR"]]}
    assert facts["shards"][""]["storage_version"].startswith("v")
    assert found.evidence.engine.startswith("DuckDB ")
    assert family(live) == before


def test_what_a_writer_committed_is_captured_while_it_has_the_file_open(tmp_path: Path) -> None:
    live = make(tmp_path / "live" / "memories.duckdb")
    with holding(live, "INSERT INTO notes VALUES (9000, 'in the log')"):
        before = family(live)
        found = taken(source(live), tmp_path)
        assert family(live) == before
    assert found.paths == ["memories.duckdb", "memories.duckdb.wal"]
    assert found.content["memories.duckdb.wal"] == before["memories.duckdb.wal"]
    assert found.evidence.facts["tables"] == {"notes": 2001}
    staged = stage(found, tmp_path / "staged")
    assert kind.examine(staged, found.evidence) == []
    assert run(staged / "memories.duckdb", "SELECT body FROM notes WHERE id = 9000") == [
        ["in the log"]
    ]


def test_what_no_process_has_committed_is_not_captured(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")
    with holding(live, "BEGIN", "DELETE FROM notes"):
        assert taken(source(live), tmp_path).evidence.facts["tables"] == {"notes": 2000}


class Meddling(Reader):
    """Has somebody checkpoint between the log and the file, each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tries = 0

    def pieces(self, descriptor: int, size: int) -> Iterator[bytes]:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(self.path):
            self.tries += 1
            with self.path.open("r+b") as file:
                content = file.read(duckdb_file.FIRST_BLOCK)
                file.seek(4096 + 8)
                file.write(struct.pack("<Q", struct.unpack_from("<Q", content, 4096 + 8)[0] + 2))
        yield from super().pieces(descriptor, size)


def test_a_copy_that_cannot_be_proven_is_an_error_after_bounded_tries(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")
    reader = Meddling(live)
    told = "in 2 tries; of the last one: a header"
    with (
        holding(live, "INSERT INTO notes VALUES (9000, 'x')"),
        pytest.raises(SourceUnstable, match=told),
    ):
        taken(source(live), tmp_path, Patience(tries=2), reader)
    assert reader.tries == 1  # the second saw a header that is not whole, and copied nothing


def test_damage_is_told_from_being_written_to(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")
    with live.open("r+b") as file:
        for at in range(20_000, live.stat().st_size, 4096):
            file.seek(at)
            file.write(b"wrecked")
    with pytest.raises(SourceUnreadable, match="DuckDB cannot read"):
        taken(source(live), tmp_path)


def test_what_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        taken(source(tmp_path / "none.duckdb"), tmp_path)
    (tmp_path / "text.duckdb").write_text("hello" * 100)
    with pytest.raises(SourceUnreadable, match=r"text\.duckdb is not a DuckDB database"):
        taken(source(tmp_path / "text.duckdb"), tmp_path)
    (tmp_path / "empty.duckdb").touch()
    with pytest.raises(SourceUnreadable, match=r"empty\.duckdb is empty"):
        taken(source(tmp_path / "empty.duckdb"), tmp_path)
    (tmp_path / "shards").mkdir()
    with pytest.raises(SourceUnreadable, match="0 DuckDB files lie below"):
        taken(source(tmp_path / "shards"), tmp_path)
    assert not (tmp_path / "none.duckdb").exists()


def test_a_checkpoint_that_a_dead_program_left_is_not_guessed_at(tmp_path: Path) -> None:
    live = left_open(make(tmp_path / "memories.duckdb"), "DELETE FROM notes WHERE id < 10")
    (tmp_path / "memories.duckdb.wal").rename(tmp_path / "memories.duckdb.wal.checkpoint")
    with pytest.raises(SourceUnreadable, match=r"died left memories\.duckdb\.wal\.checkpoint"):
        taken(source(live), tmp_path)


def test_a_file_of_a_newer_duckdb_is_captured_and_said_not_to_be_examined(tmp_path: Path) -> None:
    live = newer(make(tmp_path / "memories.duckdb"))
    found = taken(source(live), tmp_path)
    assert found.content["memories.duckdb"] == live.read_bytes()
    (note,) = found.evidence.notes
    assert "stored, and not looked into" in note
    assert "version number 1000" in note
    staged = stage(found, tmp_path / "staged")
    (finding,) = kind.examine(staged, found.evidence)
    assert (finding.code, finding.subject) == ("not-examined", "memories.duckdb")
    assert kind.is_sound(source(live))
    (tmp_path / "undo").mkdir()
    kind.keep(source(live), tmp_path / "undo", staged)
    live.write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    kind.place(source(tmp_path / "elsewhere" / "memories.duckdb"), staged)
    assert (tmp_path / "elsewhere" / "memories.duckdb").read_bytes() == found.content[
        "memories.duckdb"
    ]


def test_excluded_tables_are_empty_and_none_of_their_bytes_are_left(tmp_path: Path) -> None:
    live = make(
        tmp_path / "memories.duckdb",
        "CREATE SEQUENCE ids",
        "CREATE TABLE notes(id BIGINT DEFAULT nextval('ids') PRIMARY KEY, body VARCHAR)",
        "INSERT INTO notes(body) SELECT 'kept ' || range FROM range(3000)",
        "CREATE TABLE cache(body VARCHAR)",
        "INSERT INTO cache SELECT 'confidential-' || range FROM range(3000)",
        "CREATE VIEW pairs AS SELECT * FROM notes, cache",
        "CHECKPOINT",
        "DELETE FROM cache WHERE rowid < 1000",
    )
    assert b"confidential" in live.read_bytes()
    with holding(live, "INSERT INTO cache VALUES ('confidential in the log')"):
        found = taken(source(live, "CACHE"), tmp_path)
    assert b"confidential" not in b"".join(found.content.values())
    assert b"kept" in found.content["memories.duckdb"]
    facts = found.evidence.facts
    assert (facts["tables"], facts["excluded"]) == ({"cache": 0, "notes": 3000}, ["cache"])
    staged = stage(found, tmp_path / "staged")
    assert kind.examine(staged, found.evidence) == []
    copy = staged / "memories.duckdb"
    assert run(copy, "INSERT INTO notes(body) VALUES ('next') RETURNING id") == [[3001]]
    assert run(copy, "SELECT count(*) FROM pairs") == [[0]]


def test_a_table_that_is_not_there_or_is_referred_to_cannot_be_left_out(tmp_path: Path) -> None:
    live = make(
        tmp_path / "memories.duckdb",
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(id INTEGER REFERENCES parent(id))",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (1)",
    )
    with pytest.raises(SettingsInvalid, match=r"names 'cahce'.*there are: child, parent"):
        taken(source(live, "cahce"), tmp_path)
    with pytest.raises(SourceUnreadable, match="parent cannot be left out"):
        taken(source(live, "parent"), tmp_path)


def test_a_directory_of_databases_is_one_source(tmp_path: Path) -> None:
    root = tmp_path / "akosha"
    make(root / "2026" / "a.duckdb")
    make(root / "b.duckdb", "CREATE TABLE cache AS SELECT 'confidential' AS body")
    (root / "notes.txt").write_text("not a database, however large" * 10)
    (root / "link.duckdb").symlink_to(root / "b.duckdb")
    with holding(root / "2026" / "a.duckdb", "DELETE FROM notes WHERE id < 500"):
        found = taken(source(root, "cache"), tmp_path)
    assert sorted(found.paths) == ["2026/a.duckdb", "2026/a.duckdb.wal", "b.duckdb"]
    facts = found.evidence.facts
    assert facts["tables"] == {"2026/a.duckdb:notes": 1500, "b.duckdb:cache": 0}
    assert facts["excluded"] == ["b.duckdb:cache"]
    staged = stage(found, tmp_path / "staged")
    assert kind.examine(staged, found.evidence) == []
    (staged / "b.duckdb").unlink()
    run(staged / "2026" / "a.duckdb", "UPDATE notes SET body = 'other' WHERE id = 700")
    codes = {(item.code, item.subject) for item in kind.examine(staged, found.evidence)}
    assert codes == {("missing", "b.duckdb"), ("content", "2026/a.duckdb")}


def test_of_what_was_examined_before_every_shard_has_to_open(tmp_path: Path) -> None:
    root = tmp_path / "akosha"
    make(root / "2026" / "a.duckdb")
    make(root / "b.duckdb")
    found = taken(source(root), tmp_path)
    staged = stage(found, tmp_path / "staged")
    assert kind.opens(staged, found.evidence) == []
    (staged / "b.duckdb").unlink()
    whole = (staged / "2026" / "a.duckdb").read_bytes()
    (staged / "2026" / "a.duckdb").write_bytes(whole[:20_000])
    codes = {(item.code, item.subject) for item in kind.opens(staged, found.evidence)}
    assert codes == {("missing", "b.duckdb"), ("integrity", "2026/a.duckdb")}
    newer(staged / "2026" / "a.duckdb")
    (one,) = [item for item in kind.opens(staged, found.evidence) if item.subject != "b.duckdb"]
    assert one.code == "not-examined"


def test_types_schema_and_rows_that_differ_are_found(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")
    found = taken(source(live), tmp_path)
    staged = stage(found, tmp_path / "staged")
    copy = staged / "memories.duckdb"

    def codes(statement: str) -> set[str]:
        stage(found, staged)
        run(copy, statement)
        return {finding.code for finding in kind.examine(staged, found.evidence)}

    assert codes("DELETE FROM notes WHERE id = 3") == {"row-count"}
    assert codes("ALTER TABLE notes ALTER body TYPE BLOB USING encode(body)") == {"types"}
    assert codes("CREATE VIEW seen AS SELECT * FROM notes") == {"schema", "content"}
    copy.write_bytes(copy.read_bytes()[:20_000])
    assert [item.code for item in kind.examine(staged, found.evidence)] == ["integrity"]


def test_a_fingerprint_is_equal_only_while_nothing_was_written(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")

    def aged() -> str:
        for path in tmp_path.glob("memories.duckdb*"):
            os.utime(path, (1e9, 1e9))  # ctime still tells, and is fresh
        shards = duckdb_file.shards_of("memories", live)
        newest = max(duckdb_file.identity(shard)[1] for shard in shards)
        assert duckdb_file.fingerprint(shards, newest + 1_000_000_000) == ""
        return duckdb_file.fingerprint(shards, newest + 3_000_000_000)

    seen = [aged()]
    shards = duckdb_file.shards_of("memories", live)
    assert duckdb_file.fingerprint(shards, 2**62) == seen[0]
    with holding(live, "INSERT INTO notes VALUES (5000, 'a')"):
        seen.append(duckdb_file.fingerprint(shards, 2**62))
    run(live, "UPDATE notes SET body = 'b' WHERE id = 1")
    seen.append(duckdb_file.fingerprint(shards, 2**62))
    assert len({*seen}) == 3


def test_without_the_module_it_says_how_to_install_it(tmp_path: Path) -> None:
    live = make(tmp_path / "memories.duckdb")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mcp_backup.errors import SourceUnreadable\n"
        "from mcp_backup.sources import duckdb\n"
        "from tests.duckdb.ducks import source, taken\n"
        "sys.modules['duckdb'] = None\n"
        "try: taken(source(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "except SourceUnreadable as error: print(error, error.hint)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(live), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the `duckdb` module is not installed" in ran.stdout, ran.stderr
    assert "pip install 'mcp-backup[duckdb]'" in ran.stdout


async def test_a_capture_that_is_cut_short_leaves_the_live_file_alone(tmp_path: Path) -> None:
    live = make(tmp_path / "live" / "memories.duckdb")
    before = family(live)
    arena = Arena.create(3)
    (tmp_path / "scratch").mkdir()
    async with captured(source(live), arena, tmp_path / "scratch"):
        pass
    arena.close()
    assert family(live) == before
    run(live, "SELECT 1")
