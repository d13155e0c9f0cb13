"""The history: every run, begun and ended, with who asked and what became of each source.

It survives kill -9 (a run is on the disk when it begins; what a dead process left running is
"interrupted" to whoever looks next), and it is bounded. It belongs to one machine and one
repository; `rebuilt` takes what the repository's own backups tell, where the file is new or was
damaged.

A run that is for a slot of the schedule claims it: of several processes one gets it, and a slot
is free again only if the run was interrupted, cancelled or, some minutes ago, failed (at most
`ATTEMPTS` times in all), or released.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

from anyio import to_thread

from mcp_backup import history_queries as queries
from mcp_backup.errors import SlotTaken
from mcp_backup.history_facts import (
    Asker,
    Ending,
    NewestCopy,
    Proof,
    Run,
    RunSource,
    Totals,
    Window,
    asked_by,
    asking,
)
from mcp_backup.history_file import HistoryFile, fact, set_fact
from mcp_backup.history_queries import ATTEMPTS, SUCCESS, micros

__all__ = [
    "ATTEMPTS",
    "Asker",
    "Ending",
    "History",
    "NewestCopy",
    "Run",
    "RunSource",
    "Totals",
    "asked_by",
    "asking",
]

T = TypeVar("T")
KEPT_RUNS = 20_000
KEPT_SOURCES = 100_000  # outcomes of single sources; the oldest runs lose theirs first
KEPT_FOR = timedelta(days=731)
_TEXT_LIMIT = 1000  # characters of anything that others word


class History:
    """The runs on record. May be used concurrently, and by several processes."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        """Keep the history in the file `path`, made when first needed; `now` is aware."""
        self._file = HistoryFile(path)
        self._now = now
        self._running: dict[int, tuple[str, int]] = {}
        self._windows = queries.Windows()

    async def begin(
        self, verb: str, *, slot: str = "", subject: str = "", begun: datetime | None = None
    ) -> int:
        """Put on record that a run begins, asked for by the current `asking`; return its id.

        Without a `slot` the asker's is taken; `begun` is for what began before it could be put
        on record.

        Raises:
            SlotTaken: the slot has been run, or is being run.
            HistoryUnusable: it could not be put on record.
        """
        asker = asking.get()
        about = (verb, subject[:_TEXT_LIMIT], slot or asker.slot)
        return await to_thread.run_sync(self._begin, about, begun or self._now(), asker)

    def _begin(self, about: tuple[str, str, str], begun: datetime, asker: Asker) -> int:
        verb, subject, slot = about
        token = token_hex(16)
        descriptor = self._file.begin_running(token)

        def work(db: sqlite3.Connection) -> int:
            self._end_interrupted(db)
            values = (
                *(verb, subject, slot, _next_attempt(db, verb, slot, self._now())),
                *(asker.door, asker.name[:_TEXT_LIMIT], asker.version[:_TEXT_LIMIT], asker.tool),
                *(token, micros(begun)),
            )
            row = db.execute(
                "INSERT INTO runs (verb, subject, slot, attempt, door, client, version, tool, "
                "token, begun, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running')",
                values,
            )
            assert row.lastrowid is not None
            return row.lastrowid

        try:
            run = self._file.transact(work)
        except BaseException:
            self._file.end_running(token, descriptor)
            raise
        self._running[run] = token, descriptor
        return run

    async def end(  # noqa: PLR0913 - one parameter per fact
        self,
        run: int,
        outcome: Ending,
        *,
        backup_id: str = "",
        read: int = 0,
        added: int = 0,
        stored: int = 0,
        duration: float = 0.0,
        error_code: str = "",
        message: str = "",
        sources: Sequence[RunSource] = (),
    ) -> None:
        """Put on record how a run ended.

        Raises:
            HistoryUnusable: it could not be; the run will count as interrupted.
        """
        facts = (backup_id, read, added, stored, duration, error_code, message[:_TEXT_LIMIT])

        def work(db: sqlite3.Connection) -> None:
            values = (outcome, micros(self._now()), *facts, run)
            db.execute(
                "UPDATE runs SET outcome = ?, ended = ?, backup_id = ?, read = ?, added = ?, "
                "stored = ?, duration = ?, error_code = ?, message = ? WHERE id = ?",
                values,
            )
            _add_sources(db, run, sources)
            row = db.execute("SELECT verb, begun FROM runs WHERE id = ?", (run,)).fetchone()
            if row and row[0] == "create":
                _note_successes(db, row[1], backup_id, sources)
            _forget_old(db, micros(self._now() - KEPT_FOR))

        await to_thread.run_sync(self._finish, run, work)

    async def release(self, run: int) -> None:
        """Give back the slot of a run that could not even begin, so that it may be tried again."""

        def work(db: sqlite3.Connection) -> None:
            ended = micros(self._now())
            db.execute("UPDATE runs SET outcome = 'released', ended = ? WHERE id = ?", (ended, run))

        await to_thread.run_sync(self._finish, run, work)

    def _finish(self, run: int, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            self._file.transact(work)
        finally:
            if run in self._running:
                self._file.end_running(*self._running.pop(run))

    async def runs(
        self, *, verb: str = "", since: datetime | None = None, limit: int = 100
    ) -> list[Run]:
        """Return runs, newest first; empty conditions want all."""
        return await self._read(lambda db: queries.runs(db, verb, since, limit))

    async def last_success(self) -> Mapping[tuple[str, str], datetime]:
        """Return when the newest copy of each source was begun, by (component, name)."""
        return {source: copy.time for source, copy in (await self.newest_copies()).items()}

    async def newest_copies(self) -> Mapping[tuple[str, str], NewestCopy]:
        """Return the newest copy of each source that was made, by (component, name)."""
        return await self._read(queries.newest_copies)

    async def windows(self) -> Mapping[tuple[str, str], Window]:
        """Return the longest time between two copies of each source, by (component, name)."""
        return await self._read(self._windows.counted)

    async def proofs(self) -> Mapping[str, Proof]:
        """Return what verifications have found of backups since they were made, by backup id."""
        return await self._read(queries.proofs)

    async def slots_since(self, since: datetime, at: datetime | None = None) -> set[str]:
        """Return the slots of runs begun since then that `begin` would refuse at a time, or now."""
        return await self._read(lambda db: queries.taken_slots(db, since, at or self._now()))

    async def knows(self, slot: str) -> bool:
        """Whether a run for that slot is on record."""
        asked = "SELECT EXISTS (SELECT 1 FROM runs WHERE slot = ?)"
        return await self._read(lambda db: bool(db.execute(asked, (slot,)).fetchone()[0]))

    async def totals(self) -> Totals:
        """Count the backups on record."""
        return await self._read(queries.totals)

    async def damaged(self) -> str:
        """Return the name that a damaged history was moved to, the last time; "" if never."""
        return await self._read(lambda db: fact(db, "damaged"))

    async def is_new(self) -> bool:
        """Whether the file has nothing from before it was made, and waits for `rebuilt`."""
        return await self._read(lambda db: fact(db, "rebuilt") == "")

    async def rebuilt(self, runs: Iterable[Run]) -> int:
        """Take in the runs that the repository itself tells of, oldest first; once per file.

        Returns how many were taken.
        """
        known = list(runs)

        def work(db: sqlite3.Connection) -> int:
            if fact(db, "rebuilt"):
                return 0
            have = {row[0] for row in db.execute("SELECT backup_id FROM runs")}
            new = [run for run in known if run.backup_id not in have]
            for run in new:
                _insert(db, run)
            set_fact(db, "rebuilt", str(len(new)))
            return len(new)

        return await to_thread.run_sync(self._file.transact, work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(db: sqlite3.Connection) -> T:
            self._end_interrupted(db)
            return work(db)

        return await to_thread.run_sync(self._file.transact, whole)

    def _end_interrupted(self, db: sqlite3.Connection) -> None:
        """End what is on record as running and belongs to a process that is gone."""
        rows = db.execute("SELECT id, token, begun FROM runs WHERE outcome = 'running'").fetchall()
        for run, token, begun in rows:
            if not self._file.runs(token):
                ended = max(begun, micros(self._now()))
                db.execute(
                    "UPDATE runs SET outcome = 'interrupted', ended = ?, error_code = "
                    "'interrupted', message = 'the process ended before the run did' "
                    "WHERE id = ?",
                    (ended, run),
                )


def _next_attempt(db: sqlite3.Connection, verb: str, slot: str, now: datetime) -> int:
    attempt = queries.next_attempt(db, verb, slot, now) if slot else 1
    if attempt is None:
        raise SlotTaken(slot)
    return attempt


def _add_sources(db: sqlite3.Connection, run: int, sources: Iterable[RunSource]) -> None:
    db.executemany(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(run, each.component, each.name, each.outcome, each.read, each.added),
                *(each.duration, each.findings, each.message[:_TEXT_LIMIT]),
            )
            for each in sources
        ],
    )


def _note_successes(
    db: sqlite3.Connection, time: int, backup_id: str, sources: Iterable[RunSource]
) -> None:
    good = [each for each in sources if each.outcome in SUCCESS]
    db.executemany(
        "INSERT INTO successes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
        "SET time = excluded.time, backup_id = excluded.backup_id WHERE excluded.time >= time",
        [(each.component, each.name, time, backup_id) for each in good],
    )


def _insert(db: sqlite3.Connection, run: Run) -> None:
    begun = micros(run.begun)
    values = (
        *(run.verb, run.subject, run.asker.door, begun, run.outcome, run.backup_id),
        *(micros(run.ended) if run.ended else begun, run.read, run.added, run.stored),
        *(run.duration, run.message),
    )
    row = db.execute(
        "INSERT INTO runs (verb, subject, slot, attempt, door, client, version, tool, token, "
        "begun, outcome, backup_id, ended, read, added, stored, duration, message) "
        "VALUES (?, ?, '', 1, ?, '', '', '', '', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    assert row.lastrowid is not None
    _add_sources(db, row.lastrowid, run.sources)
    _note_successes(db, begun, run.backup_id, run.sources)


def _forget_old(db: sqlite3.Connection, oldest: int) -> None:
    """Keep the file bounded; `successes` is apart, so that no source's last success goes."""
    last = db.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0]
    db.execute(
        "DELETE FROM runs WHERE (id <= ? OR begun < ?) AND outcome <> 'running'",
        (last - KEPT_RUNS, oldest),
    )
    first = db.execute("SELECT coalesce(min(id), 0) FROM runs").fetchone()[0]
    db.execute("DELETE FROM sources WHERE run < ?", (first,))
    row = db.execute(
        "SELECT run FROM sources ORDER BY rowid DESC LIMIT 1 OFFSET ?", (KEPT_SOURCES,)
    ).fetchone()
    if row:
        db.execute("DELETE FROM sources WHERE run <= ?", row)
