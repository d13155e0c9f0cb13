"""The drill: backups restored for real into scratch, from the repository alone, and examined.

Nothing that this process knows of the repository is used: it is opened anew with the password
that the settings name, as somebody would after the machine was lost. Every copy is staged,
examined against its evidence, put in place of a stand-in within scratch, and asked the owner's
questions; a dump is loaded into a database of its own on a server, and that is examined and asked.
What is found is evidence, good or bad. Nothing live is opened.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
from anyio import to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from mcp_backup.catalog import Catalog
from mcp_backup.drill_facts import (
    REPOSITORY,
    DrilledSource,
    DrillReport,
    DrillRequest,
    Phase,
)
from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.proof.choosing import Chance, Chosen, choose, sources_of
from mcp_backup.proof.evidence import Ledger
from mcp_backup.proof.loading import clear, ground
from mcp_backup.recording import recorded
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.restore.examining import Means, examined
from mcp_backup.restore.stager import stage, subtree
from mcp_backup.restore.workspace import remove_tree, workspace
from mcp_backup.settings import Settings, repository_password
from mcp_backup.settings_drills import CheckSettings
from mcp_backup.sources import capture
from mcp_backup.sources.capture import CAPTURING
from mcp_backup.sources.source import SERVED, Component, Finding
from mcp_backup.verbs import SourceFinding
from mcp_backup.workers import forking, gently

logger = logging.getLogger(__name__)

_AT_PATHS = frozenset(("sqlite", "duckdb", "files"))  # kinds whose place is a path, so any path
_OUT_OF_TIME = "the time budget ended first"
_NOT_LOADED = "its dump is whole, and was not loaded, so it is not proven: "


def ledger_of(engine: Engine) -> Ledger:
    """Return the evidence of an engine's drills."""
    return Ledger(engine.state, engine.repository.key)


@recorded("drill")
async def drill(
    engine: Engine,
    request: DrillRequest | None = None,
    listener: Listener = nobody,
    *,
    chance: Chance = secrets.randbelow,
) -> DrillReport:
    """Restore into scratch, examine, time it, and put it on record.

    What is wrong with backups or repository is in the report. A cancel leaves no record, and
    nothing in scratch.

    Raises:
        UnknownSource, UsageError: this cannot be meant.
        HistoryUnusable: the evidence could not be written.
        SettingsInvalid, StoreFull: scratch cannot be used.
    """
    asked = request or DrillRequest()
    specs = sources_of(engine.settings, asked)
    settings = engine.settings.drills
    started, began = engine.now(), monotonic()
    minutes = settings.minutes if asked.minutes is None else asked.minutes
    work = _Work(engine, asked, listener, anyio.current_time() + minutes * 60)
    with gently(settings.niceness):
        try:
            await clear(engine.state)
            async with (
                forking(SEALING, *CAPTURING),
                work.opened() as repository,
                workspace(engine.settings.scratch) as scratch,
            ):
                catalog = Catalog(repository)
                with work.timed("find"):
                    chosen, findings = await choose(catalog, specs, asked, engine.hostname, chance)
                work.findings += findings
                await work.drill(repository, chosen, scratch)
        except _Unusable:
            pass  # it is among the findings
    report = work.report(started, monotonic() - began)
    report = await ledger_of(engine).append(report)
    logger.info("drilled: drill=%s outcome=%s", report.drill_id, report.outcome)
    return report


class _Unusable(Exception):
    """The repository cannot be used at all."""


class _Work(Struct):
    """One drill under way."""

    engine: Engine
    request: DrillRequest
    listener: Listener
    deadline: float
    phases: list[Phase] = field(default_factory=list)
    findings: list[SourceFinding] = field(default_factory=list)
    results: list[DrilledSource] = field(default_factory=list)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Repository]:
        """Open the repository as a stranger to it would, and keep it locked."""
        engine, settings = self.engine, self.engine.settings
        try:
            with self.timed("open"):
                password = await to_thread.run_sync(_password, settings, engine)
                repository = await open_repository(
                    engine.repository.store,
                    password,
                    now=engine.now,
                    hostname=engine.hostname,
                    username="drill",
                )
                await repository.load_index()
        except BackupError as error:
            self.findings.append(
                SourceFinding(REPOSITORY, error.code, settings.repository.location, str(error))
            )
            raise _Unusable from error
        async with locked(repository, wait=PATIENCE_SECONDS):
            yield repository

    def timed(self, name: str) -> "_Timer":
        return _Timer(name, self.phases)

    async def drill(self, repository: Repository, chosen: Sequence[Chosen], scratch: Path) -> None:
        async with sealing_pool(repository.key) as pool:
            means = Means(repository, pool, self.listener)
            for number, each in enumerate(chosen):
                await self.listener(Progress("drill", each.record.name, number, len(chosen)))
                phases: list[Phase] = []
                blank = _blank(each)
                with anyio.CancelScope(deadline=self.deadline) as budget:
                    blank = await _drilled(self.engine, means, each, scratch, phases)
                if budget.cancelled_caught:
                    blank = replace(blank, phases=tuple(phases), reason=_OUT_OF_TIME)
                self.results.append(blank)

    def report(self, started: datetime, duration: float) -> DrillReport:
        failed = self.findings or any(result.outcome == "failed" for result in self.results)
        skipped = any(result.outcome == "skipped" for result in self.results)
        return DrillReport(
            drill_id=f"drill_{started:%Y%m%d_%H%M%S}_{secrets.token_hex(3)}",
            scenario=self.request.scenario or "",
            started=started,
            duration_seconds=round(duration, 3),
            hostname=self.engine.hostname,
            outcome="failed" if failed else "incomplete" if skipped else "proven",
            phases=tuple(self.phases),
            results=tuple(self.results),
            findings=tuple(self.findings),
        )


class _Timer:
    """Times a block, however it ends."""

    def __init__(self, name: str, phases: list[Phase]) -> None:
        self._name, self._phases = name, phases

    def __enter__(self) -> None:
        self._began = monotonic()

    def __exit__(self, *_: object) -> None:
        self._phases.append(Phase(self._name, round(monotonic() - self._began, 3)))


def _password(settings: Settings, engine: Engine) -> str:
    return repository_password(settings, engine.environ).reveal()


def _blank(chosen: Chosen) -> DrilledSource:
    record, backup = chosen.record, chosen.backup
    return DrilledSource(
        source=record.name,
        component=record.component,
        kind=record.kind,
        backup_id=backup.backup_id,
        snapshot_id=backup.id.hex(),
        captured=backup.snapshot.time,
        pick=chosen.pick,
        outcome="skipped",
    )


_Ask = Callable[[str, float], Awaitable[int | float | str | None]]


class _Tried(Struct, frozen=True):
    """What became of a restored copy: answers that were right, findings; why it is not proven."""

    passed: int = 0
    findings: Sequence[Finding] = ()
    unable: str = ""
    left: str = ""


async def _drilled(
    engine: Engine, means: Means, chosen: Chosen, scratch: Path, phases: list[Phase]
) -> DrilledSource:
    """Restore one source of one backup, examine it, put it in place of a stand-in, and ask it."""
    record, directory = chosen.record, scratch / "drill"
    size, tried, found = 0, _Tried(), list[Finding]()
    try:
        with _Timer("restore", phases):
            tree = await subtree(means.repository, chosen.backup.snapshot.tree, record.tree)
            size = await stage(means.repository, tree, directory, means.write)
        with _Timer("examine", phases):
            found += await examined(record, directory)
            if record.evidence is None:
                found.append(Finding("no-evidence", record.tree, "nothing tells what it was"))
        if record.kind not in SERVED:
            tried = await _tried_here(engine.settings, chosen, scratch, phases, sound=not found)
        elif not found:
            tried = await _tried_on_server(engine, chosen, directory, phases)
        found += tried.findings
    except BackupError as error:
        found.append(Finding(error.code, record.tree, str(error)))
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_removed, scratch)
    return replace(
        _blank(chosen),
        outcome="failed" if found else "skipped" if tried.unable else "proven",
        size=size,
        phases=tuple(phases),
        checks=tried.passed,
        findings=tuple(SourceFinding.of(record.name, each) for each in dict.fromkeys(found)),
        reason="; ".join(filter(None, (tried.unable, tried.left))),
    )


async def _tried_here(
    settings: Settings, chosen: Chosen, scratch: Path, phases: list[Phase], *, sound: bool
) -> _Tried:
    """Ask a copy in files the owner's questions; put it in place of a stand-in if it is well."""
    kind, directory = chosen.record.kind, scratch / "drill"
    with _Timer("checks", phases):
        ask = partial(capture.value_of, kind, directory)
        passed, failed = await _asked(settings, chosen, ask)
    if kind in _AT_PATHS and sound and not failed:
        with _Timer("place", phases):
            await _placed(chosen, directory, scratch / "stand-in")
    return _Tried(passed, failed)


async def _tried_on_server(
    engine: Engine, chosen: Chosen, directory: Path, phases: list[Phase]
) -> _Tried:
    """Load a dump into a database of its own, examine that, and ask it the owner's questions."""
    passed, failed = 0, list[Finding]()
    async with ground(engine.state, chosen.spec) as place:
        with _Timer("load", phases):
            loaded = await capture.rehearse(
                place.spec, directory, place.directory, chosen.record.evidence
            )
        if not (loaded.unable or loaded.findings):
            with _Timer("checks", phases):
                ask = partial(capture.value_in, place.spec, place.directory)
                passed, failed = await _asked(engine.settings, chosen, ask)
    unable = f"{_NOT_LOADED}{loaded.unable}" if loaded.unable else ""
    return _Tried(passed, [*loaded.findings, *failed], unable, place.left)


async def _asked(settings: Settings, chosen: Chosen, ask: _Ask) -> tuple[int, list[Finding]]:
    """Ask the owner's questions; return how many answers were right, and the others."""
    passed, findings = 0, list[Finding]()
    limit = settings.drills.check_seconds
    for number, check in enumerate(_checks(settings, chosen), 1):
        subject = f"check {number}"
        try:
            value = await ask(check.query, limit)
        except BackupError as error:
            findings.append(Finding("check", subject, str(error)))
            continue
        if check.holds(value):
            passed += 1
        else:
            shown = f"{value:g}" if isinstance(value, int | float) else "something else"
            message = f"expected {check.expect}, got {shown}"
            findings.append(Finding("check", subject, message))
    return passed, findings


def _checks(settings: Settings, chosen: Chosen) -> Sequence[CheckSettings]:
    if chosen.record.component is not Component.DATABASES:
        return ()
    named = (each for each in settings.databases if each.name == chosen.record.name)
    return next((each.checks for each in named), ())


async def _placed(chosen: Chosen, directory: Path, stand_in: Path) -> None:
    """Put a staged copy in place, as a restore does, at a path that nobody uses."""
    await to_thread.run_sync(stand_in.mkdir)
    named = chosen.record.component is Component.DATABASES  # a file, or a directory of them
    path = stand_in / Path(chosen.spec.path).name if named else stand_in
    await capture.place(replace(chosen.spec, path=str(path)), directory)


def _removed(scratch: Path) -> None:
    for path in (scratch / "drill", scratch / "stand-in"):
        if path.exists():
            remove_tree(path)
