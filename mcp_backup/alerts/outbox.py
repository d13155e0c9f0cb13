"""What is wrong and what is still to be told, in one SQLite file that several processes use.

    conditions   one row per trouble that has been told and is not over
    letters      one row per alert and receiver that has not been delivered
    told         one row per run that was looked at, so that no other process looks again

A file that is damaged is moved aside. One that cannot be written (a full disk is a reason to tell
somebody) is stood in for by memory, for as long as the process lives.

Everything here blocks, and is called in worker threads.
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TypeVar

from msgspec import Struct

from mcp_backup.alerts.alert import Alert
from mcp_backup.durable import make_directory_durably
from mcp_backup.settings_alerts import Event

logger = logging.getLogger(__name__)

T = TypeVar("T")
_BACKOFF = (30, 60, 120, 300, 900, 3600)  # seconds after each failed try; the last one repeats
_GIVE_UP = timedelta(days=7)  # by then nobody wants to know, and the receiver is gone
_LEASE = timedelta(minutes=5)  # more than a try takes; then a process that has it has died
_MOST_WAITING = 500  # letters per receiver; the oldest go first
_BUSY_SECONDS = 10
_DAMAGED = ("malformed", "not a database")
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS conditions (
        key TEXT PRIMARY KEY, event TEXT NOT NULL, subject TEXT NOT NULL, message TEXT NOT NULL,
        since TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS letters (
        number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, thread TEXT NOT NULL,
        alert TEXT NOT NULL, made REAL NOT NULL, due REAL NOT NULL, leased REAL NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0, trouble TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE IF NOT EXISTS told (run TEXT PRIMARY KEY, time REAL NOT NULL);
    CREATE INDEX IF NOT EXISTS letters_of_receiver ON letters (receiver, thread, number);
"""


class OpenCondition(Struct, frozen=True):
    """A trouble that has been told and is not over."""

    key: str
    event: Event
    subject: str
    message: str
    since: datetime


class Letter(Struct, frozen=True):
    """An alert for one receiver, claimed to be tried now. `tries` were made before."""

    number: int
    alert: Alert
    tries: int


class PendingAlert(Struct, frozen=True):
    """An alert that has not been delivered. `trouble` says why the last try failed, or ""."""

    receiver: str
    event: Event
    title: str
    made: datetime
    tries: int
    next_try: datetime
    trouble: str


class Outbox:
    """The file at `path`; made when something is first put into it."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        """Use the file at `path`; `now` tells the time."""
        self._path = path
        self._now = now
        self._memory: sqlite3.Connection | None = None
        self._turn = Lock()  # for the connection in memory, which threads share

    def conditions(self) -> list[OpenCondition]:
        """Return what has been told and is not over, oldest first."""
        if not self._exists():
            return []
        rows = self._done(
            lambda db: db.execute(
                "SELECT key, event, subject, message, since FROM conditions ORDER BY since, key"
            ).fetchall()
        )
        return [
            OpenCondition(key, Event(event), subject, message, datetime.fromisoformat(since))
            for key, event, subject, message, since in rows
        ]

    def begin(self, condition: OpenCondition, letters: Sequence[tuple[str, Alert]]) -> bool:
        """Note that a trouble began, and queue what tells of it; False if it was known already."""

        def work(db: sqlite3.Connection) -> bool:
            facts = (condition.key, condition.event, condition.subject, condition.message)
            added = db.execute(
                "INSERT OR IGNORE INTO conditions VALUES (?, ?, ?, ?, ?)",
                (*facts, condition.since.isoformat()),
            ).rowcount
            if not added:  # the newest wording is what status shows
                db.execute(
                    "UPDATE conditions SET message = ? WHERE key = ?",
                    (condition.message, condition.key),
                )
                return False
            self._queue(db, condition.key, letters)
            return True

        return self._done(work)

    def end(
        self, key: str, letters: Callable[[OpenCondition], Sequence[tuple[str, Alert]]]
    ) -> bool:
        """Note that a trouble is over, and queue what tells of that; False if there was none."""
        if not self._exists():
            return False

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(
                "DELETE FROM conditions WHERE key = ? RETURNING event, subject, message, since",
                (key,),
            ).fetchone()
            if row is None:
                return False
            event, subject, message, since = row
            was = OpenCondition(key, Event(event), subject, message, datetime.fromisoformat(since))
            self._queue(db, key, letters(was))
            return True

        return self._done(work)

    def replace(self, thread: str, letters: Sequence[tuple[str, Alert]]) -> None:
        """Queue letters of which only the last of a thread matters: older ones are dropped."""
        if not letters:
            return

        def work(db: sqlite3.Connection) -> None:
            for receiver, _ in letters:
                db.execute(
                    "DELETE FROM letters WHERE receiver = ? AND thread = ? AND leased <= ?",
                    (receiver, thread, self._now().timestamp()),
                )
            self._queue(db, thread, letters)

        self._done(work)

    def claim(self, receiver: str) -> Letter | None:
        """Take the next letter that is due for this receiver; nobody else has it meanwhile.

        Letters of one thread keep their order. What waited too long is given up.
        """
        if not self._exists():
            return None

        def work(db: sqlite3.Connection) -> Letter | None:
            now = self._now()
            self._give_up(db, now)
            row = db.execute(
                """SELECT number, alert, tries FROM letters AS mine
                   WHERE receiver = ? AND due <= ? AND leased <= ? AND NOT EXISTS (
                       SELECT 1 FROM letters AS older WHERE older.receiver = mine.receiver
                       AND older.thread = mine.thread AND older.number < mine.number)
                   ORDER BY due, number LIMIT 1""",
                (receiver, now.timestamp(), now.timestamp()),
            ).fetchone()
            if row is None:
                return None
            number, text, tries = row
            try:
                alert = Alert.decoded(text)
            except ValueError as error:  # somebody wrote into the file: the others go out
                logger.warning("an undelivered alert is dropped, it cannot be read: %s", error)
                db.execute("DELETE FROM letters WHERE number = ?", (number,))
                return None
            db.execute(
                "UPDATE letters SET leased = ? WHERE number = ?",
                ((now + _LEASE).timestamp(), number),
            )
            return Letter(number, alert, tries)

        return self._done(work)

    def delivered(self, letter: Letter) -> None:
        """Forget a letter that has arrived."""
        self._done(lambda db: db.execute("DELETE FROM letters WHERE number = ?", (letter.number,)))

    def postponed(self, letter: Letter, trouble: str) -> None:
        """Try a letter again later, as its receiver could not be reached."""
        wait = _BACKOFF[min(letter.tries, len(_BACKOFF) - 1)]
        due = self._now().timestamp() + wait
        self._done(
            lambda db: db.execute(
                """UPDATE letters SET leased = 0, tries = tries + 1, due = ?, trouble = ?
                   WHERE number = ?""",
                (due, trouble, letter.number),
            )
        )

    def released(self, letter: Letter) -> None:
        """Give a claimed letter back untried."""
        self._done(
            lambda db: db.execute(
                "UPDATE letters SET leased = 0 WHERE number = ?", (letter.number,)
            )
        )

    def pending(self) -> list[PendingAlert]:
        """Return what has not been delivered, oldest first."""
        if not self._exists():
            return []
        rows = self._done(
            lambda db: db.execute(
                "SELECT receiver, alert, made, tries, due, trouble FROM letters ORDER BY number"
            ).fetchall()
        )
        return [
            PendingAlert(
                receiver,
                alert.event,
                alert.title,
                datetime.fromtimestamp(made, UTC),
                tries,
                datetime.fromtimestamp(due, UTC),
                trouble,
            )
            for receiver, text, made, tries, due, trouble in rows
            if (alert := _legible(text))
        ]

    def next_due(self) -> datetime | None:
        """Return when the next letter is to be tried; None if there is none."""
        if not self._exists():
            return None
        (due,) = self._done(
            lambda db: db.execute("SELECT min(max(due, leased)) FROM letters").fetchone()
        )
        return None if due is None else datetime.fromtimestamp(due, UTC)

    def claim_runs(self, runs: Collection[str]) -> set[str]:
        """Return those of the runs that nobody has looked at; nobody else is given them."""

        def work(db: sqlite3.Connection) -> set[str]:
            now = self._now().timestamp()
            marks = ",".join("?" * len(runs))
            seen = db.execute(f"SELECT run FROM told WHERE run IN ({marks})", tuple(runs))
            new = set(runs) - {run for (run,) in seen}
            if new:
                db.executemany("INSERT INTO told VALUES (?, ?)", [(run, now) for run in new])
                db.execute("DELETE FROM told WHERE time < ?", (now - _GIVE_UP.total_seconds(),))
            return new

        return self._done(work) if runs else set()

    def _queue(
        self, db: sqlite3.Connection, thread: str, letters: Sequence[tuple[str, Alert]]
    ) -> None:
        now = self._now().timestamp()
        for receiver, alert in letters:
            db.execute(
                "INSERT INTO letters (receiver, thread, alert, made, due) VALUES (?, ?, ?, ?, ?)",
                (receiver, thread, alert.encoded().decode(), now, now),
            )
            db.execute(
                """DELETE FROM letters WHERE receiver = ? AND number IN (
                       SELECT number FROM letters WHERE receiver = ?
                       ORDER BY number DESC LIMIT -1 OFFSET ?)""",
                (receiver, receiver, _MOST_WAITING),
            )

    def _give_up(self, db: sqlite3.Connection, now: datetime) -> None:
        """Drop what waited too long, for receivers that left the settings too."""
        given_up = db.execute(
            "DELETE FROM letters WHERE made < ?", ((now - _GIVE_UP).timestamp(),)
        ).rowcount
        if given_up:
            logger.error("alerts given up after a week: count=%d", given_up)

    def _exists(self) -> bool:
        return self._memory is not None or self._path.exists()

    def _done(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction, in the file if that is possible at all."""
        if self._memory is None:
            try:
                return self._in_file(work)
            except (sqlite3.Error, OSError) as error:
                logger.error(  # noqa: TRY400 - the fact is enough
                    "alerts are kept in memory only: file=%s trouble=%s", self._path, error
                )
        with self._turn:
            if self._memory is None:
                self._memory = sqlite3.connect(":memory:", check_same_thread=False)
                self._memory.executescript(_SCHEMA)
            with self._memory:
                return work(self._memory)

    def _in_file(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._opened() as db:
                return work(db)
        except sqlite3.DatabaseError as error:
            if not any(words in str(error) for words in _DAMAGED):
                raise
            self._set_aside()
        with self._opened() as db:
            return work(db)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        make_directory_durably(self._path.parent)
        if not self._path.exists():
            self._path.touch(mode=0o600)
        with closing(
            sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as db:
            db.execute("PRAGMA synchronous = FULL")
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                db.executescript(_SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    def _set_aside(self) -> None:
        """Move a damaged file away, and what belongs to it."""
        stamp = self._now().strftime("%Y%m%d-%H%M%S")
        aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}")
        with suppress(FileNotFoundError):  # another process was first
            self._path.rename(aside)
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        logger.error("alerts were lost with a damaged file, kept as %s", aside)


def _legible(text: str) -> Alert | None:
    try:
        return Alert.decoded(text)
    except ValueError:
        return None  # dropped when its turn comes
