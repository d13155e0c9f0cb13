"""The exchange: whatever is live, and whoever has it open, becomes what was staged, or stays."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_backup.errors import TargetBusy
from mcp_backup.sources import sqlite, sqlite_placement
from tests.sources import writer
from tests.sources.databases import (
    HOT,
    ask,
    ask_live,
    crashed,
    database,
    fill,
    holding,
    make,
    written,
)

OLD, NEW = 3_000, 1_000  # rows


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    directory = tmp_path / "staged"
    directory.mkdir()
    make(directory / "live.db", fill(NEW))
    return directory


def _content(path: Path) -> str:
    return sqlite.content_digest("notes", path)


def _is_new(live: Path, staged: Path) -> bool:
    return (
        _content(live) == _content(staged / "live.db")
        and ask_live(live, "PRAGMA integrity_check") == "ok"
    )


@pytest.mark.parametrize("captured_in", ["wal", "delete"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_live_file_keeps_its_journal_mode_and_its_inode(
    tmp_path: Path, mode: str, captured_in: str
) -> None:
    live = make(tmp_path / "live.db", fill(OLD), mode)
    (tmp_path / "staged").mkdir()
    make(tmp_path / "staged" / "live.db", fill(NEW), captured_in)
    before = live.stat()
    image = (tmp_path / "staged" / "live.db").read_bytes()
    assert sqlite.place(database(live), tmp_path / "staged") == []
    assert ask_live(live, "PRAGMA journal_mode") == mode
    assert _is_new(live, tmp_path / "staged")
    assert live.stat().st_ino == before.st_ino
    assert (tmp_path / "staged" / "live.db").read_bytes() == image
    assert [path.name for path in (tmp_path / "staged").iterdir()] == ["live.db"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_program_that_has_it_open_goes_on_with_the_restored_data(
    tmp_path: Path, mode: str
) -> None:
    live, staged = tmp_path / "live.db", tmp_path / "staged"
    staged.mkdir()
    writer.prepare(str(live), "delete")
    shutil.copy(live, staged / "live.db")
    with written(live, mode) as writing:
        while ask_live(live, "SELECT rows FROM counter") < 200:
            pass
        sqlite.place(database(live), staged)
        after = ask_live(live, "SELECT rows FROM counter")
        while ask_live(live, "SELECT rows FROM counter") <= after:
            pass
        assert ask_live(live, writer.PROMISES) == 1
    assert writing.lived["errors"] == []
    assert ask_live(live, "SELECT rows FROM counter") < writing.lived["commits"]  # it began anew
    assert ask_live(live, "PRAGMA integrity_check") == "ok"
    assert ask_live(live, "PRAGMA journal_mode") == mode


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(500_000))


def _text(path: Path) -> None:
    path.write_bytes(b"hello world\n" * 1_000)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def _first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(3_000))


def _body(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(9_000)
        file.write(os.urandom(100_000))


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _garbage_wal(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(os.urandom(100_000))


def _foreign_wal(path: Path) -> None:
    """Leave a WAL beside it that belongs to another database, with another page size."""
    other = make(path.with_name("other.db"), fill(100), "wal", 8192)
    crashed(other, "UPDATE t SET text = 'foreign'")
    Path(f"{other}-wal").rename(f"{path}-wal")
    Path(f"{other}-shm").unlink()
    other.unlink()


def _stale_wal(path: Path) -> None:
    """Leave a WAL beside it of an earlier life of the same database."""
    other = path.with_name("other.db")
    shutil.copy(path, other)
    crashed(other, "PRAGMA journal_mode=wal", "UPDATE t SET text = 'stale'")
    Path(f"{other}-wal").rename(f"{path}-wal")
    Path(f"{other}-shm").unlink()
    other.unlink()


def _hot_journal(path: Path) -> None:
    crashed(path, *HOT)
    assert Path(f"{path}-journal").exists()


def _foreign_journal(path: Path) -> None:
    other = make(path.with_name("other.db"), fill(2_000))
    crashed(other, *HOT)
    Path(f"{other}-journal").rename(f"{path}-journal")
    other.unlink()


def _absent(path: Path) -> None:
    path.unlink()


def _absent_beside_a_wal(path: Path) -> None:
    _stale_wal(path)
    path.unlink()


def _larger(path: Path) -> None:
    with path.open("ab") as file:
        file.write(os.urandom(200_000))


DAMAGE = [
    _garbage,
    _text,
    _half,
    _first_page,
    _body,
    _empty,
    _larger,
    _garbage_wal,
    _foreign_wal,
    _stale_wal,
    _hot_journal,
    _foreign_journal,
    _absent,
    _absent_beside_a_wal,
]


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("page_size", [4096, 8192])
def test_every_kind_of_damage_is_replaced_kept_and_put_back(
    tmp_path: Path, staged: Path, mode: str, damage: Callable[[Path], None], page_size: int
) -> None:
    live = make(tmp_path / "live.db", fill(OLD), mode, page_size)
    undo = tmp_path / "undo"
    undo.mkdir()
    damage(live)
    before = _files(live)
    kept = sqlite.keep(database(live), undo, staged)
    assert _files(live) == before  # keeping changed nothing
    sqlite.place(database(live), staged)
    assert _is_new(live, staged)
    sqlite.put_back(database(live), undo)
    if kept.state == "present":
        assert _content(live) == _content(undo / "image")
    else:
        assert _files(live) == before


def test_a_stale_wal_does_not_turn_a_database_to_wal_mode(tmp_path: Path, staged: Path) -> None:
    live = make(tmp_path / "live.db", fill(OLD), "delete")
    _stale_wal(live)
    sqlite.place(database(live), staged)
    assert ask_live(live, "PRAGMA journal_mode") == "delete"
    assert _is_new(live, staged)


def _files(live: Path) -> dict[str, bytes]:
    names = [live, Path(f"{live}-wal"), Path(f"{live}-journal")]
    found = {path.name: path.read_bytes() for path in names if path.exists()}
    return {name: content for name, content in found.items() if content or name == live.name}


def test_a_live_file_that_is_made_anew_has_the_staged_mode(tmp_path: Path, staged: Path) -> None:
    (staged / "live.db").chmod(0o640)
    live = tmp_path / "not" / "yet" / "live.db"
    sqlite.place(database(live), staged)
    assert stat.S_IMODE(live.stat().st_mode) == 0o640
    assert (staged / "live.db").read_bytes() == live.read_bytes()
    assert [path.name for path in live.parent.iterdir()] == ["live.db"]


def test_a_link_to_the_database_stays_a_link(tmp_path: Path, staged: Path) -> None:
    real = make(tmp_path / "real.db", fill(OLD), "wal")
    link = tmp_path / "link.db"
    link.symlink_to(real)
    sqlite.place(database(link), staged)
    assert link.is_symlink()
    assert _is_new(real, staged)


@pytest.mark.parametrize(
    ("mode", "statements"),
    [
        ("delete", ("BEGIN", "SELECT count(*) FROM t")),  # a reader, in a rollback mode
        ("delete", ("BEGIN IMMEDIATE",)),
        ("wal", ("BEGIN IMMEDIATE",)),
    ],
)
def test_a_database_in_use_is_left_alone_and_its_holder_named(
    tmp_path: Path,
    staged: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    statements: tuple[str, ...],
) -> None:
    monkeypatch.setattr(sqlite_placement, "WAIT_SECONDS", 0.3)
    live = make(tmp_path / "live.db", fill(OLD), mode)
    with holding(live, *statements) as holder:
        before = _files(live)
        with pytest.raises(TargetBusy, match=rf"pid {holder.pid}\)"):
            sqlite.place(database(live), staged)
        assert _files(live) == before
    assert ask_live(live, "SELECT count(*) FROM t") == OLD


def test_a_reader_in_wal_mode_keeps_what_it_sees_until_it_is_done(
    tmp_path: Path, staged: Path
) -> None:
    live = make(tmp_path / "live.db", fill(OLD), "wal")
    with holding(live, "BEGIN", "SELECT count(*) FROM t") as holder:
        notes = sqlite.place(database(live), staged)
        assert "until those who read the database are done" in notes[0]
        seen, _ = holder.communicate()
        assert int(seen) == OLD
    assert ask_live(live, "SELECT count(*) FROM t") == NEW


def test_a_page_size_that_must_change_waits_for_those_who_have_the_wal_open(
    tmp_path: Path, staged: Path
) -> None:
    live = make(tmp_path / "live.db", fill(OLD), "wal", 8192)
    with (
        holding(live, "SELECT count(*) FROM t") as holder,
        pytest.raises(TargetBusy, match=rf"pid {holder.pid}\)"),
    ):
        sqlite.place(database(live), staged)
    assert ask_live(live, "SELECT count(*) FROM t") == OLD


@pytest.mark.parametrize("damage", [None, _garbage, _half])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(
    tmp_path: Path, mode: str, damage: Callable[[Path], None] | None
) -> None:
    staged, pristine = tmp_path / "staged", tmp_path / "pristine.db"
    staged.mkdir()
    make(staged / "live.db", fill(8_000, 1_000))
    make(pristine, fill(8_000, 1_000), mode)
    if damage is not None:
        damage(pristine)
    old = pristine.read_bytes()
    ends = {"old": 0, "new": 0}
    whole = _seconds_of_a_whole_exchange(tmp_path, pristine, staged)
    for attempt in range(6):
        live = _copied(pristine, tmp_path / f"live{attempt}.db")
        child = _exchanging(live, staged)
        time.sleep(whole * (attempt + 0.5) / 6)
        child.kill()
        child.wait()
        try:
            ends["new" if _is_recovered_to_new(live, staged) else "old"] += 1
        except subprocess.CalledProcessError:  # SQLite finds the damage that was there before
            assert live.read_bytes().rstrip(b"\0") == old.rstrip(b"\0")  # filled up to whole pages
            ends["old"] += 1
    assert sum(ends.values()) == 6


def _copied(pristine: Path, live: Path) -> Path:
    shutil.copy(pristine, live)
    return live


def _exchanging(live: Path, staged: Path) -> subprocess.Popen[bytes]:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mcp_backup.sources import sqlite_placement\n"
        "print('ready', flush=True)\n"
        "sqlite_placement.exchange('notes', Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(live), str(staged / "live.db")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    with child.stdout as said:
        assert said.readline() == b"ready\n"
    return child


def _seconds_of_a_whole_exchange(tmp_path: Path, pristine: Path, staged: Path) -> float:
    live = _copied(pristine, tmp_path / "whole.db")
    began = time.monotonic()
    assert _exchanging(live, staged).wait() == 0
    assert _content(live) == _content(staged / "live.db")
    return time.monotonic() - began


def _is_recovered_to_new(live: Path, staged: Path) -> bool:
    """Open the database like any program, which finishes what a crash left; tell what it is."""
    program = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], timeout=5)\n"
        "assert c.execute('PRAGMA integrity_check').fetchall() == [('ok',)]\n"
        "c.close()"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(live)], check=True, stderr=subprocess.DEVNULL
    )
    if _content(live) == _content(staged / "live.db"):
        return True
    assert _content(live) == _content(live.with_name("pristine.db"))
    return False


def test_putting_back_waits_for_nobody_who_has_a_damaged_file_open(
    tmp_path: Path, staged: Path
) -> None:
    live = make(tmp_path / "live.db", fill(OLD))
    _garbage(live)
    undo = tmp_path / "undo"
    undo.mkdir()
    assert sqlite.keep(database(live), undo, staged).state == "damaged"
    sqlite.place(database(live), staged)
    with (
        holding(live, "SELECT count(*) FROM t") as holder,
        pytest.raises(TargetBusy, match=rf"pid {holder.pid}\)"),
    ):
        sqlite.put_back(database(live), undo)
    assert _is_new(live, staged)


def test_an_absent_database_is_absent_again_when_it_is_put_back(
    tmp_path: Path, staged: Path
) -> None:
    live, undo = tmp_path / "live.db", tmp_path / "undo"
    undo.mkdir()
    assert sqlite.keep(database(live), undo, staged).state == "absent"
    sqlite.place(database(live), staged)
    ask_live(live, "PRAGMA journal_mode=wal")
    sqlite.put_back(database(live), undo)
    assert not list(tmp_path.glob("live.db*"))
    sqlite.put_back(database(live), undo)  # and again, as after a crash


def test_what_was_written_until_the_restore_is_in_the_undo_point(
    tmp_path: Path, staged: Path
) -> None:
    live, undo = make(tmp_path / "live.db", fill(OLD), "wal"), tmp_path / "undo"
    undo.mkdir()
    with holding(live, "PRAGMA wal_autocheckpoint=0", f"INSERT INTO t VALUES ({OLD + 1}, 'late')"):
        assert sqlite.keep(database(live), undo, staged).state == "present"
        assert ask(undo / "image", "SELECT count(*) FROM t") == OLD + 1
        sqlite.place(database(live), staged)
        sqlite.put_back(database(live), undo)
        assert ask_live(live, "SELECT count(*) FROM t") == OLD + 1
