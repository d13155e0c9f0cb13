"""kill -9 in the middle of an exchange of pages: what is live is all old or all new, and usable.

Also what would be there had the machine died with the process: database and WAL without the
WAL's index, which is memory.
"""

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mcp_backup.sources import sqlite
from tests.sources.databases import ask_live, database, fill, holding, make

ROWS = 6_000


def exchanged(live: Path, staged: Path, at: int) -> list[str] | None:
    """Exchange in a child; return its calls, or None when it killed itself."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.crash.exchange_child", str(live), str(staged), str(at)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == -signal.SIGKILL:
        return None
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


CHANGES = (
    "UPDATE t SET text = 'changed' WHERE id % 100 = 0",
    "CREATE TABLE more(a)",
    "INSERT INTO more VALUES (1)",
)
NO_CHECKPOINT = "PRAGMA wal_autocheckpoint = 0"


class Scene:
    """A database live in WAL mode, and a staged one that differs in some pages."""

    def __init__(self, root: Path) -> None:
        self.live, self.staged, self._old = root / "live.db", root / "staged", root / "old.db"
        self.staged.mkdir()
        make(self.staged / "live.db", fill(ROWS), "wal")
        shutil.copy(self.staged / "live.db", self._old)
        with closing(sqlite3.connect(self._old, isolation_level=None)) as connection:
            for statement in CHANGES:
                connection.execute(statement)
        self.after = sqlite.content_digest("notes", self.staged / "live.db")

    @contextmanager
    def played(self, wal: str) -> Iterator[str]:
        """Play the scene; the WAL is nobody's, or holds nothing, or the changes. Gives a digest."""
        for path in self.live.parent.glob("live.db*"):
            path.unlink()
        shutil.copy(self.staged / "live.db" if wal == "full" else self._old, self.live)
        if wal == "nobody":
            yield sqlite.content_digest("notes", self.live)
            return
        changes = CHANGES if wal == "full" else ("SELECT count(*) FROM t",)
        with holding(self.live, NO_CHECKPOINT, *changes):
            yield sqlite.content_digest("notes", self.live)

    def after_a_power_cut(self) -> str:
        """Return the digest of what the files would be had the machine died: no WAL's index."""
        crashed = self.live.with_name("crashed")
        crashed.mkdir()
        for suffix in ("", "-wal"):
            if Path(f"{self.live}{suffix}").exists():
                shutil.copy(f"{self.live}{suffix}", crashed / f"live.db{suffix}")
        try:
            return sqlite.content_digest("notes", crashed / "live.db")
        finally:
            shutil.rmtree(crashed)


@pytest.mark.parametrize("wal", ["nobody", "empty", "full"])
def test_killed_before_any_call_of_an_exchange_all_is_old_or_new(tmp_path: Path, wal: str) -> None:
    scene = Scene(tmp_path)
    with scene.played(wal) as before:
        assert before != scene.after
        calls = exchanged(scene.live, scene.staged, 0)
        assert calls is not None
        assert sqlite.content_digest("notes", scene.live) == scene.after
    seen = set()
    for number in range(1, len(calls) + 1):
        with scene.played(wal) as before:
            assert exchanged(scene.live, scene.staged, number) is None
            crashed = scene.after_a_power_cut()
            found = sqlite.content_digest("notes", scene.live)
            assert {crashed, found} <= {before, scene.after}, calls[number - 1]
            assert ask_live(scene.live, "PRAGMA integrity_check") == "ok"
            seen.add((crashed == scene.after, found == scene.after))
            sqlite.place(database(scene.live), scene.staged)
            assert sqlite.content_digest("notes", scene.live) == scene.after
    in_between = {(True, False)} if wal != "nobody" else set()  # on the disk, not yet published
    assert seen == {(False, False), (True, True)} | in_between
