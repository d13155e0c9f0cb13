"""What is asked of the history's file, each within a transaction."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from msgspec import Struct

from mcp_backup.history_facts import Asker, NewestCopy, Proof, Run, RunSource, Totals, Window

SUCCESS = ("stored", "unchanged")
ATTEMPTS = 3
RETRIED_AFTER = (timedelta(minutes=5), timedelta(minutes=20))  # the first failure, any later one
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = (
    "id, verb, subject, slot, door, client, version, tool, begun, ended, outcome, backup_id, "
    "read, added, stored, duration, error_code, message"
)
_TAKEN = f"""
    max(outcome NOT IN ('interrupted', 'cancelled', 'released', 'failed'))
    OR sum(outcome IN ('interrupted', 'cancelled', 'failed')) >= {ATTEMPTS}
    OR max(ended * (outcome = 'failed')) + iif(sum(outcome = 'failed') > 1,
        {RETRIED_AFTER[1] // timedelta(microseconds=1)},
        {RETRIED_AFTER[0] // timedelta(microseconds=1)}) > :now
        AND sum(outcome = 'failed')
"""


def runs(db: sqlite3.Connection, verb: str, since: datetime | None, limit: int) -> list[Run]:
    """Return runs, newest first; empty conditions want all."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM runs WHERE verb LIKE ? AND begun >= ? ORDER BY id DESC LIMIT ?",
        (verb or "%", micros(since) if since else 0, limit),
    ).fetchall()
    return [_run(db, row) for row in rows]


def newest_copies(db: sqlite3.Connection) -> dict[tuple[str, str], NewestCopy]:
    """Return the newest copy of each source that was made."""
    rows = db.execute("SELECT component, name, time, backup_id FROM successes").fetchall()
    return {(row[0], row[1]): NewestCopy(moment(row[2]), row[3]) for row in rows}


def taken_slots(db: sqlite3.Connection, since: datetime, now: datetime) -> set[str]:
    """Return the slots of runs begun since then that may not be run now."""
    rows = db.execute(
        "SELECT slot FROM runs WHERE begun >= :since AND slot <> '' GROUP BY verb, slot "
        f"HAVING {_TAKEN}",
        {"since": micros(since), "now": micros(now)},
    ).fetchall()
    return {slot for (slot,) in rows}


def next_attempt(db: sqlite3.Connection, verb: str, slot: str, now: datetime) -> int | None:
    """Return the number of a slot's next run; None if it may not be run now."""
    taken, attempts = db.execute(
        f"SELECT {_TAKEN}, count(*) FROM runs WHERE verb = :verb AND slot = :slot",
        {"verb": verb, "slot": slot, "now": micros(now)},
    ).fetchone()
    return None if taken else attempts + 1


def totals(db: sqlite3.Connection) -> Totals:
    """Count the backups on record."""
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


def proofs(db: sqlite3.Connection) -> dict[str, Proof]:
    """Return what verifications found of each backup since it was made, by its id."""
    rows = db.execute(
        "SELECT id, backup_id, ended, outcome, message FROM runs "
        "WHERE verb = 'verify' AND outcome IN ('completed', 'findings') "
        "AND backup_id <> '' ORDER BY id"
    )  # one after the other: there may be 20,000, and every list asks
    found: dict[str, Proof] = {}
    for run, backup_id, ended, outcome, message in rows:
        before = found.get(backup_id, Proof())
        if outcome == "findings":
            damaged = db.execute(
                "SELECT name FROM sources WHERE run = ? AND outcome = 'findings'", (run,)
            ).fetchall()
            names = frozenset(name for (name,) in damaged)
            found[backup_id] = before._replace(damaged=before.damaged | names)
        elif message != "level structure":  # which reads nothing back
            found[backup_id] = Proof(moment(ended))
    return found


class _Track(Struct):
    first: int
    last: int
    widest: int = 0
    widest_began: int = 0


class Windows:
    """The longest time that each source was without a new copy, counted as copies come in."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = Lock()
        self._counted = 0  # the outcomes of sources up to this row
        self._tracks: dict[tuple[str, str], _Track] = {}

    def counted(self, db: sqlite3.Connection) -> Mapping[tuple[str, str], Window]:
        """Count what is new, and return the longest time between two copies of each source."""
        with self._lock:
            newest = db.execute("SELECT coalesce(max(rowid), 0) FROM sources").fetchone()[0]
            if newest < self._counted:  # another file than it was
                self._counted, self._tracks = 0, {}
            rows = db.execute(  # a cross join, so that it begins with what is new
                "SELECT component, name, begun FROM sources CROSS JOIN runs "
                "ON runs.id = sources.run WHERE sources.rowid > ? AND verb = 'create' "
                "AND sources.outcome IN ('stored', 'unchanged') ORDER BY begun",
                (self._counted,),
            ).fetchall()
            for component, name, begun in rows:
                track = self._tracks.setdefault((component, name), _Track(begun, begun))
                if begun - track.last > track.widest:
                    track.widest, track.widest_began = begun - track.last, track.last
                track.last = max(begun, track.last)
            self._counted = newest
            return {
                source: Window(
                    moment(track.last),
                    timedelta(microseconds=track.widest),
                    moment(track.widest_began) if track.widest else None,
                )
                for source, track in self._tracks.items()
            }


def micros(time: datetime) -> int:
    """Return a time as the file has it."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def moment(count: int) -> datetime:
    """Return the time that the file has as `count`."""
    return _EPOCH + timedelta(microseconds=count)


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
        begun=moment(begun),
        ended=None if ended is None else moment(ended),
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
