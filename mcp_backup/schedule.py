"""The schedule at work: one process of many makes the backups that are due. Knows APScheduler.

Every process that runs the schedule tries to hold `schedule.lock`; the one that does leads, and
the system drops the lock when it dies, however it dies. The leader looks at the clock when a slot
is due and every few seconds besides, so that a machine that slept, a clock that was set and a
leader that just took over are all the same case: whatever is due and not in the history is run.
A run claims its slot in the history first, which two processes cannot both do. A run that failed
outright is tried again some minutes later, twice at most; the history says when.

APScheduler only wakes the task that runs the backups, so that they live in our cancel scopes:
its own shutdown would cancel them.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectReceiveStream
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.date import DateTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-untyped]
from filelock import FileLock, Timeout
from msgspec import Struct

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.durable import write_durably
from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError, HistoryUnusable, SlotTaken
from mcp_backup.forgetting import forget
from mcp_backup.history_facts import Asker, asked_by
from mcp_backup.proof.drill import drill
from mcp_backup.slots import Schedule, Slot, missed, next_runs, schedules_of, zone_of
from mcp_backup.verbs import CreateRequest

logger = logging.getLogger(__name__)
logging.getLogger("apscheduler").setLevel(logging.WARNING)  # it tells of each wake-up

_LOOK_BACK = timedelta(days=45)  # a monthly slot that was missed is still caught up


class Timing(Struct, frozen=True):
    """How often to look, and how patient to be, in seconds."""

    pulse: float = 15.0  # between looks at the clock and the lock; also until another takes over
    drain: float = 20.0  # that a backup under way gets when the schedule is stopped


async def run_schedule(
    engine: Engine, schedules: Sequence[Schedule] | None = None, timing: Timing | None = None
) -> None:
    """Make the backups that are due until cancelled; those of the settings by default.

    A cancel lets a backup under way finish if it does in time, else it is stopped and leaves no
    snapshot; the log says which.
    """
    found = schedules_of(engine.settings) if schedules is None else schedules
    if not found:
        return
    leader = _Leader(engine, found, timing or Timing())
    await leader.run()


class _Leader:
    """The schedule in this process, leading or waiting to."""

    def __init__(self, engine: Engine, schedules: Sequence[Schedule], timing: Timing) -> None:
        self._engine = engine
        self._schedules = schedules
        self._zone = zone_of(engine.settings)
        self._timing = timing
        self._lock = FileLock(engine.state / "schedule.lock", thread_local=False, mode=0o600)
        self._tried: set[str] = set()  # what the history does not know of
        self._seen = engine.now()
        self._next: datetime | None = None
        self._complaint = ""

    async def run(self) -> None:
        try:
            async with _alarm(self._timing.pulse) as (wakes, wake_at):
                async for _ in wakes:
                    await self._look(wake_at)
        finally:
            self._lock.release()

    async def _look(self, wake_at: Callable[[datetime], None]) -> None:
        """Run what is due, if it is ours to run. One of the two places that catch everything."""
        try:
            if not await self._leads():
                return
            await self._run_due()
        except Exception:
            logger.exception("unexpected failure of the schedule; it goes on")
        following = next_runs(self._schedules, self._zone, self._engine.now())
        if following and following[0].due != self._next:  # or a clock behind ours would go round
            self._next = following[0].due
            wake_at(self._next)

    async def _leads(self) -> bool:
        if self._lock.is_locked:
            return True
        try:
            await to_thread.run_sync(_make_directory, self._engine.state)
            await to_thread.run_sync(lambda: self._lock.acquire(blocking=False))
        except Timeout:
            return False
        except OSError as error:
            self._complain(f"schedule not run: {self._lock.lock_file}: {error.strerror}")
            return False
        logger.info("schedule led by this process: %s", ", ".join(s.name for s in self._schedules))
        self._seen = self._engine.now()
        return True

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            logger.error("%s", why)
        self._complaint = why

    async def _run_due(self) -> None:
        now = self._engine.now()
        for slot in await self._due(now):
            self._tried.add(slot.key)
            await self._run(slot)
            with suppress(HistoryUnusable):
                if await self._engine.history.knows(slot.key):
                    self._tried.discard(slot.key)  # then the history says what becomes of it
        self._seen = now

    async def _due(self, now: datetime) -> list[Slot]:
        since = await to_thread.run_sync(_first_run, self._engine.state / "schedule.since", now)
        since = max(since, now - _LOOK_BACK)
        try:
            taken = await self._engine.history.slots_since(now - 2 * _LOOK_BACK, now)
        except HistoryUnusable as error:
            self._complain(f"what was missed is not caught up: {error}")
            taken, since = set(), max(since, self._seen)
        return missed(self._schedules, self._zone, since, taken | self._tried, now)

    async def _run(self, slot: Slot) -> None:
        async def work() -> None:
            with asked_by(Asker("schedule", tool=slot.schedule.name, slot=slot.key)):
                await _backed_up(self._engine, slot)
            request = slot.schedule.request
            if isinstance(request, CreateRequest) and not request.databases:
                with asked_by(Asker("schedule", tool=slot.schedule.name)):
                    await _tidied(self._engine)

        logger.info("due: slot=%s since=%s", slot.key, slot.due.isoformat())
        await _draining(work, slot.key, self._timing.drain)


async def _backed_up(engine: Engine, slot: Slot) -> None:
    """Run one slot. What goes wrong is in the log and the history, and the schedule goes on."""
    request = slot.schedule.request
    try:
        if isinstance(request, DrillRequest):
            await drill(engine, request)
            return
        report = await engine.create(request)
    except SlotTaken:
        logger.info("run by another process: slot=%s", slot.key)
    except BackupError as error:
        logger.error("scheduled run failed: slot=%s [%s] %s", slot.key, error.code, error)  # noqa: TRY400 - expected, and on record
    else:
        logger.info("scheduled backup made: slot=%s backup=%s", slot.key, report.backup_id)


async def _tidied(engine: Engine) -> None:
    """Drop what retention does not keep; what hinders that is for the next time."""
    if engine.settings.repository.append_only:  # which is done elsewhere
        return
    try:
        await forget(engine)
    except BackupError as error:
        logger.warning("retention was not applied: [%s] %s", error.code, error)


async def _draining(work: Callable[[], Awaitable[None]], subject: str, patience: float) -> None:
    """Do the work; when cancelled, give it `patience` seconds to finish before it is stopped."""
    stopping = False

    async def limit(running: anyio.CancelScope) -> None:
        nonlocal stopping
        try:
            await anyio.sleep_forever()
        finally:
            if not finished.is_set():
                stopping = True
                running.deadline = anyio.current_time() + patience

    finished = anyio.Event()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope(shield=True) as running:
            tasks.start_soon(limit, running)
            await work()
        finished.set()
        tasks.cancel_scope.cancel()
        if running.cancelled_caught:
            logger.warning("stopped while under way, nothing of it is kept: slot=%s", subject)
        elif stopping:
            logger.info("finished before stopping: slot=%s", subject)


@asynccontextmanager
async def _alarm(
    pulse: float,
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[None], Callable[[datetime], None]]]:
    """Provide a stream that something arrives on now, every `pulse` seconds, and when told to."""
    send, receive = anyio.create_memory_object_stream[None](1)

    async def wake() -> None:  # a coroutine, since functions are called in threads
        with suppress(anyio.WouldBlock, anyio.ClosedResourceError):
            send.send_nowait(None)

    scheduler = AsyncIOScheduler(
        timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None}
    )

    def wake_at(due: datetime) -> None:
        scheduler.add_job(wake, DateTrigger(due, UTC), id="due", replace_existing=True)

    scheduler.add_job(wake, IntervalTrigger(seconds=pulse, timezone=UTC), id="pulse")
    scheduler.start()
    try:
        with send, receive:
            await wake()
            yield receive, wake_at
    finally:
        scheduler.shutdown(wait=False)


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _first_run(file: Path, now: datetime) -> datetime:
    """Return when the schedule was first run here; what was due before is nobody's loss."""
    with suppress(OSError, ValueError):
        since = datetime.fromisoformat(file.read_text().strip())
        if since.tzinfo is not None and since <= now:
            return since
    with suppress(OSError):  # then it is now, again and again, until it can be written
        write_durably(file, f"{now.isoformat()}\n".encode())
    return now
