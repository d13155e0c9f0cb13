"""The exchange of DuckDB databases: whole, alone, and never beside another's log."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_backup.errors import RestoreError, SourceBusy, StagingRejected, TargetBusy
from mcp_backup.sources import duckdb as kind
from mcp_backup.sources.duckdb_layout import RECORD
from tests.duckdb.ducks import FILL, family, holding, left_open, make, run, source

NEW = (*FILL, "DELETE FROM notes WHERE id >= 1000")
COUNT = "SELECT count(*) FROM notes"


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A backup whose last rows are in the log only."""
    copy = make(tmp_path / "staged" / "memories.duckdb", *NEW)
    left_open(copy, "INSERT INTO notes VALUES (5000, 'in the log')")
    return copy.parent


@pytest.fixture
def undo(tmp_path: Path) -> Path:
    (tmp_path / "undo").mkdir()
    return tmp_path / "undo"


def content(path: Path) -> str:
    return kind.content_digest("memories", path)


def test_file_and_log_go_live_as_one_and_come_back_as_they_were(
    tmp_path: Path, staged: Path, undo: Path
) -> None:
    live = left_open(make(tmp_path / "live" / "memories.duckdb"), "DELETE FROM notes WHERE id < 7")
    live.chmod(0o640)
    before, image = content(live), family(staged / "memories.duckdb")
    assert kind.keep(source(live), undo, staged).state == "present"
    assert kind.place(source(live), staged) == []
    assert content(live) == content(staged / "memories.duckdb") != before
    assert [path.name for path in live.parent.iterdir()] == ["memories.duckdb"]
    assert live.stat().st_mode & 0o777 == 0o640
    assert family(staged / "memories.duckdb") == image
    assert kind.put_back(source(live), undo) == []
    assert content(live) == before
    assert kind.put_back(source(live), undo) == []
    assert run(live, COUNT) == [[1993]]


def test_a_holder_is_named_and_nothing_is_touched(tmp_path: Path, staged: Path, undo: Path) -> None:
    live = make(tmp_path / "live" / "memories.duckdb")
    (tmp_path / "earlier").mkdir()
    kind.keep(source(live), tmp_path / "earlier", staged)
    with holding(live, "INSERT INTO notes VALUES (9000, 'mine')") as process:
        before = family(live)
        for refused in (
            lambda: kind.keep(source(live), undo, staged),
            lambda: kind.place(source(live), staged),
            lambda: kind.put_back(source(live), tmp_path / "earlier"),
        ):
            with pytest.raises(TargetBusy, match=rf"open in python\S* \(pid {process.pid}\)"):
                refused()
        with pytest.raises(SourceBusy, match=f"pid {process.pid}"):
            kind.signature(source(live), [""])
        assert {holder.pid for holder in kind.holders(source(live))} == {process.pid}
        assert kind.is_sound(source(live))
        assert family(live) == before
    assert run(live, COUNT) == [[2001]]


def test_a_reader_is_a_holder_too(tmp_path: Path, staged: Path) -> None:
    live = make(tmp_path / "live" / "memories.duckdb")
    program = (
        "import duckdb, sys\n"
        "c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(live)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(TargetBusy, match=f"pid {process.pid}"):
            kind.place(source(live), staged)


def test_what_is_not_there_is_made_and_removed_again(
    tmp_path: Path, staged: Path, undo: Path
) -> None:
    live = tmp_path / "new" / "place" / "memories.duckdb"
    live.parent.mkdir(parents=True)
    live.with_name("memories.duckdb.wal").write_bytes(b"another database's")
    assert kind.keep(source(live), undo, staged).state == "absent"
    kind.place(source(live), staged)
    assert run(live, COUNT) == [[1001]]
    assert kind.signature(source(live), [""]) == kind.signature_of(source(live), staged)
    kind.put_back(source(live), undo)
    assert list(live.parent.iterdir()) == []
    assert kind.signature(source(live), [""]) == {"": "absent"}


@pytest.mark.parametrize("damage", ["garbage", "half", "log"])
def test_a_damaged_file_is_kept_byte_for_byte_and_replaced(
    tmp_path: Path, staged: Path, undo: Path, damage: str
) -> None:
    live = left_open(make(tmp_path / "live" / "memories.duckdb"), "DELETE FROM notes WHERE id < 7")
    log = live.with_name("memories.duckdb.wal")
    if damage == "garbage":
        live.write_bytes(os.urandom(50_000))
    elif damage == "half":
        os.truncate(live, 10_000)
    else:
        torn = bytearray(log.read_bytes())
        torn[len(torn) // 2] ^= 1
        log.write_bytes(torn)
    before = family(live)
    assert not kind.is_sound(source(live))
    assert kind.keep(source(live), undo, staged).state == "damaged"
    assert kind.signature_of(source(live), undo) == {"": "damaged"}
    kind.place(source(live), staged)
    assert run(live, COUNT) == [[1001]]
    kind.put_back(source(live), undo)
    assert family(live) == before


def test_databases_of_a_directory_are_exchanged_and_others_left_alone(
    tmp_path: Path, undo: Path
) -> None:
    staged, live = tmp_path / "staged", tmp_path / "akosha"
    make(staged / "a.duckdb", *NEW)
    make(staged / "deep" / "er" / "b.duckdb", *NEW)
    make(live / "a.duckdb")
    make(live / "later.duckdb")
    spec = source(live)
    assert kind.keep(spec, undo, staged).state == "present"
    (note,) = kind.place(spec, staged)
    assert note.endswith("made elsewhere: later.duckdb (1)")
    keys = ["a.duckdb", "deep/er/b.duckdb"]
    assert kind.signature(spec, keys) == kind.signature_of(spec, staged)
    assert run(live / "deep" / "er" / "b.duckdb", COUNT) == [[1000]]
    kind.put_back(spec, undo)
    assert run(live / "a.duckdb", COUNT) == [[2000]]
    assert kind.signature(spec, keys)["deep/er/b.duckdb"] == "absent"
    with holding(live / "later.duckdb"), pytest.raises(TargetBusy):
        kind.keep(spec, undo, staged)


def test_several_databases_do_not_go_into_one_file(tmp_path: Path) -> None:
    make(tmp_path / "staged" / "a.duckdb")
    make(tmp_path / "staged" / "b.duckdb")
    live = make(tmp_path / "live" / "memories.duckdb")
    with pytest.raises(StagingRejected, match="holds 2 databases, and"):
        kind.place(source(live), tmp_path / "staged")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StagingRejected, match="no DuckDB database"):
        kind.place(source(live), tmp_path / "empty")


def test_a_half_written_undo_point_is_refused(tmp_path: Path, staged: Path, undo: Path) -> None:
    live = make(tmp_path / "live" / "memories.duckdb")
    kind.keep(source(live), undo, staged)
    (undo / RECORD).unlink()
    with pytest.raises(RestoreError, match="not a complete undo point"):
        kind.put_back(source(live), undo)
    assert run(live, COUNT) == [[2000]]


PLACING = """
import os, signal, sys
from pathlib import Path
from mcp_backup.sources import duckdb as kind
from tests.duckdb.ducks import source

live, staged, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen, exchanged = 0, False

def watch(event, args):
    global exchanged, seen
    removes_live = event == "os.remove" and (exchanged or "-tmp-" not in str(args[0]))
    exchanged = exchanged or event == "os.rename"
    if event in ("os.rename", "os.link", "subprocess.Popen") or removes_live:
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
kind.place(source(live), staged)
print(seen)
"""


def test_killed_before_any_of_its_changes_it_is_old_or_new_and_then_new(
    tmp_path: Path, staged: Path
) -> None:
    """Before each process started, each rename, and each live file removed, by its number."""
    first = make(tmp_path / "first" / "memories.duckdb")
    left_open(first, "DELETE FROM notes WHERE id < 7")
    before = family(first)
    old, new = content(first), content(staged / "memories.duckdb")
    live = tmp_path / "live" / "memories.duckdb"
    live.parent.mkdir()
    found = []
    for at in range(1, 100):
        for left in live.parent.iterdir():
            left.unlink()
        for name, data in before.items():
            (live.parent / name).write_bytes(data)
        words = [sys.executable, "-c", PLACING, str(live), str(staged), str(at)]
        ended = subprocess.run(words, capture_output=True, check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        found.append(content(live))
        assert found[-1] in (old, new), at
    assert set(found) == {old, new}
    assert found == sorted(found, key=lambda mark: mark == new)
    assert content(live) == new
    assert [path.name for path in live.parent.iterdir()] == ["memories.duckdb"]
