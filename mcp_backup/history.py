"""The history: every run, begun and ended, with who asked and what became of each source.

It survives kill -9 (a run is on the disk when it begins; what a dead process left running is
"interrupted" to whoever looks next), and it is bounded. It belongs to one machine and one
repository; `rebuilt` takes what the repository's own backups tell, where the file is new or was
damaged.

A run that is for a slot of the schedule claims it: of several processes one gets it, and a slot
is free again only if the run was interrupted or cancelled (at most `ATTEMPTS` times) or released.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from anyio import to_thread

from mcp_backup.errors import SlotTaken
from mcp_backup.history_facts import (
    Asker,
    Ending,
    NewestCopy,
    Run,
    RunSource,
    Totals,
    asked_by,
    asking,
)
from mcp_backup.history_file import HistoryFile, fact, set_fact

__all__ = [
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
ATTEMPTS = 3
_TEXT_LIMIT = 1000  # characters of anything that others word
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUCCESS = ("stored", "unchanged")
_COLUMNS = (
    "id, verb, subject, slot, door, client, version, tool, begun, ended, outcome, backup_id, "
    "read, added, stored, duration, error_code, message"
)


class History:
    """The runs on record. May be used concurrently, and by several processes."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        """Keep the history in the file `path`, made when first needed; `now` is aware."""
        self._file = HistoryFile(path)
        self._now = now
        self._running: dict[int, tuple[str, int]] = {}

    async def begin(self, verb: str, *, slot: str = "", subject: str = "") -> int:
        """Put on record that a run begins, asked for by the current `asking`; return its id.

        Without a `slot` the asker's is taken.

        Raises:
            SlotTaken: the slot has been run, or is being run.
            HistoryUnusable: it could not be put on record.
        """
        return await to_thread.run_sync(self._begin, verb, slot, subject, asking.get())

    def _begin(self, verb: str, slot: str, subject: str, asker: Asker) -> int:
        slot = slot or asker.slot
        token = token_hex(16)
        descriptor = self._file.begin_running(token)

        def work(db: sqlite3.Connection) -> int:
            self._end_interrupted(db)
            values = (
                *(verb, subject[:_TEXT_LIMIT], slot, _next_attempt(db, verb, slot)),
                *(asker.door, asker.name[:_TEXT_LIMIT], asker.version[:_TEXT_LIMIT], asker.tool),
                *(token, _micros(self._now())),
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
            values = (outcome, _micros(self._now()), *facts, run)
            db.execute(
                "UPDATE runs SET outcome = ?, ended = ?, backup_id = ?, read = ?, added = ?, "
                "stored = ?, duration = ?, error_code = ?, message = ? WHERE id = ?",
                values,
            )
            _add_sources(db, run, sources)
            row = db.execute("SELECT verb, begun FROM runs WHERE id = ?", (run,)).fetchone()
            if row and row[0] == "create":
                _note_successes(db, row[1], backup_id, sources)
            _forget_old(db, _micros(self._now() - KEPT_FOR))

        await to_thread.run_sync(self._finish, run, work)

    async def release(self, run: int) -> None:
        """Give back the slot of a run that could not even begin, so that it may be tried again."""

        def work(db: sqlite3.Connection) -> None:
            ended = _micros(self._now())
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

        def work(db: sqlite3.Connection) -> list[Run]:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE verb LIKE ? AND begun >= ? "
                "ORDER BY id DESC LIMIT ?",
                (verb or "%", _micros(since) if since else 0, limit),
            ).fetchall()
            return [_run(db, row) for row in rows]

        return await self._read(work)

    async def last_success(self) -> Mapping[tuple[str, str], datetime]:
        """Return when the newest copy of each source was begun, by (component, name)."""
        return {source: copy.time for source, copy in (await self.newest_copies()).items()}

    async def newest_copies(self) -> Mapping[tuple[str, str], NewestCopy]:
        """Return the newest copy of each source that was made, by (component, name)."""

        def work(db: sqlite3.Connection) -> dict[tuple[str, str], NewestCopy]:
            rows = db.execute("SELECT component, name, time, backup_id FROM successes").fetchall()
            return {(row[0], row[1]): NewestCopy(_moment(row[2]), row[3]) for row in rows}

        return await self._read(work)

    async def copies_since(self, since: datetime) -> Mapping[tuple[str, str], list[datetime]]:
        """Return when each copy made since then was begun, ascending, by (component, name)."""

        def work(db: sqlite3.Connection) -> dict[tuple[str, str], list[datetime]]:
            rows = db.execute(
                "SELECT component, name, begun FROM runs JOIN sources ON sources.run = runs.id "
                "WHERE begun >= ? AND verb = 'create' "
                "AND sources.outcome IN ('stored', 'unchanged') ORDER BY begun",
                (_micros(since),),
            ).fetchall()
            found: dict[tuple[str, str], list[datetime]] = {}
            for component, name, begun in rows:
                found.setdefault((component, name), []).append(_moment(begun))
            return found

        return await self._read(work)

    async def slots_since(self, since: datetime) -> set[str]:
        """Return the slots of runs begun since then that `begin` would refuse."""

        def work(db: sqlite3.Connection) -> set[str]:
            rows = db.execute(
                "SELECT slot FROM runs WHERE begun >= ? AND slot <> '' GROUP BY verb, slot "
                "HAVING max(outcome NOT IN ('interrupted', 'cancelled', 'released')) "
                "OR sum(outcome IN ('interrupted', 'cancelled')) >= ?",
                (_micros(since), ATTEMPTS),
            ).fetchall()
            return {slot for (slot,) in rows}

        return await self._read(work)

    async def totals(self) -> Totals:
        """Count the backups on record."""

        def work(db: sqlite3.Connection) -> Totals:
            row = db.execute(
                "SELECT total(outcome IN ('completed', 'findings')), total(outcome = 'partial'), "
                "total(outcome = 'failed'), total(outcome = 'interrupted'), total(read), "
                "total(added), total(stored), total(duration * (outcome <> 'failed')), "
                "max(duration * (outcome <> 'failed')) "
                "FROM runs WHERE verb = 'create' AND ended IS NOT NULL"
            ).fetchone()
            successes, partial, failures, interrupted, read, added, stored = map(int, row[:7])
            return Totals(
                successes, partial, failures, interrupted, read, added, stored, row[7], row[8] or 0
            )

        return await self._read(work)

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
                ended = max(begun, _micros(self._now()))
                db.execute(
                    "UPDATE runs SET outcome = 'interrupted', ended = ?, error_code = "
                    "'interrupted', message = 'the process ended before the run did' "
                    "WHERE id = ?",
                    (ended, run),
                )


def _next_attempt(db: sqlite3.Connection, verb: str, slot: str) -> int:
    if not slot:
        return 1
    attempts = db.execute(
        "SELECT outcome FROM runs WHERE verb = ? AND slot = ?", (verb, slot)
    ).fetchall()
    outcomes = [outcome for (outcome,) in attempts if outcome != "released"]
    if set(outcomes) - {"interrupted", "cancelled"} or len(outcomes) >= ATTEMPTS:
        raise SlotTaken(slot)
    return len(attempts) + 1


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
    good = [each for each in sources if each.outcome in _SUCCESS]
    db.executemany(
        "INSERT INTO successes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
        "SET time = excluded.time, backup_id = excluded.backup_id WHERE excluded.time >= time",
        [(each.component, each.name, time, backup_id) for each in good],
    )


def _insert(db: sqlite3.Connection, run: Run) -> None:
    begun = _micros(run.begun)
    values = (
        *(run.verb, run.subject, run.asker.door, begun, run.outcome, run.backup_id),
        *(_micros(run.ended) if run.ended else begun, run.read, run.added, run.stored),
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


def _run(db: sqlite3.Connection, row: Sequence[Any]) -> Run:
    identity, verb, subject, slot, door, client, version, tool, begun, ended = row[:10]
    outcome, backup_id, read, added, stored, duration, error_code, message = row[10:]
    sources = db.execute(
        "SELECT component, name, outcome, read, added, duration, findings, message "
        "FROM sources WHERE run = ?",
        (identity,),
    ).fetchall()
    return Run(
        id=identity,
        verb=verb,
        subject=subject,
        asker=Asker(door, client, version, tool, slot),
        begun=_moment(begun),
        ended=None if ended is None else _moment(ended),
        outcome=outcome,
        backup_id=backup_id,
        read=read,
        added=added,
        stored=stored,
        duration=duration,
        error_code=error_code,
        message=message,
        sources=tuple(RunSource(*each) for each in sources),
    )


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
