"""What the history keeps: runs, who asked for them, and what became of each source."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from msgspec import Struct

Door = Literal["mcp", "terminal", "python", "schedule", "unknown"]
Ending = Literal["completed", "partial", "findings", "failed", "cancelled"]
Outcome = Literal[Ending, "running", "interrupted", "released"]


class Asker(Struct, frozen=True):
    """Who asked: the door, and what is known behind it; "" is unknown.

    `name` and `version` are the MCP client's, or the person's login at a terminal; `tool` is the
    tool or command. `slot` is the schedule's slot that the run is for.
    """

    door: Door
    name: str = ""
    version: str = ""
    tool: str = ""
    slot: str = ""


asking: ContextVar[Asker] = ContextVar("asking", default=Asker("python"))  # noqa: B039 - frozen


@contextmanager
def asked_by(asker: Asker) -> Iterator[None]:
    """Have the runs that begin within the block say that `asker` asked for them."""
    token = asking.set(asker)
    try:
        yield
    finally:
        asking.reset(token)


class RunSource(Struct, frozen=True):
    """One source in a run. `outcome` is the verb's own: "stored", "unchanged", "failed", ..."""

    component: str
    name: str
    outcome: str
    read: int = 0
    added: int = 0
    duration: float = 0.0
    findings: int = 0
    message: str = ""


class Run(Struct, frozen=True):
    """One run. `ended` is None while it is "running"; sizes are bytes, durations seconds.

    `read` is what was read from the sources, `added` what of it was new, `stored` what that takes
    in the repository. "interrupted" runs belong to a process that died, "released" ones gave
    their slot back before anything began.
    """

    id: int
    verb: str
    subject: str
    asker: Asker
    begun: datetime
    ended: datetime | None
    outcome: Outcome
    backup_id: str
    read: int
    added: int
    stored: int
    duration: float
    error_code: str
    message: str
    sources: tuple[RunSource, ...]


class NewestCopy(NamedTuple):
    """When a source's newest copy was begun, and the backup that holds it."""

    time: datetime
    backup_id: str


class Window(NamedTuple):
    """The longest time between two copies of a source, when it began, and its newest copy."""

    newest: datetime
    widest: timedelta
    began: datetime | None


class Proof(NamedTuple):
    """What verifications found of a backup since it was made.

    `verified`: when it was last read back without findings; `damaged`: the sources in which
    something was found since.
    """

    verified: datetime | None = None
    damaged: frozenset[str] = frozenset()


class Totals(NamedTuple):
    """The backups on record, counted: only runs of the verb "create" that have ended.

    `seconds` adds up the successful ones, `longest` is the slowest of them.
    """

    successes: int = 0
    partial: int = 0
    failures: int = 0
    interrupted: int = 0
    read: int = 0
    added: int = 0
    stored: int = 0
    seconds: float = 0.0
    longest: float = 0.0
