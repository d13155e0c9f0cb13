"""The doctor: everything a backup depends on, looked at before it is needed.

Each thing looked at is one diagnosis, sound ones too, so that a person sees what was examined.
Nothing is changed.
"""

import os
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from anyio import to_thread

from mcp_backup.approval_advice import approval_diagnosis
from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError
from mcp_backup.kit_record import kit_diagnosis
from mcp_backup.password import password_file_risk
from mcp_backup.sources.capture import holders, is_sound, reach
from mcp_backup.sources.kinds import MODULES
from mcp_backup.sources.source import REMOTE, Component, SourceSpec
from mcp_backup.verbs_upkeep import Diagnosis

_OLD = timedelta(hours=24)  # the default objective: at most a day's work may be lost
_LOW_BYTES = 1 << 30


async def diagnose(engine: Engine) -> list[Diagnosis]:
    """Look at everything; return one diagnosis for each thing, problems first."""
    found = [diagnosis async for diagnosis in _all(engine)]
    order = {"problem": 0, "warning": 1, "ok": 2}
    return sorted(found, key=lambda diagnosis: order[diagnosis.level])


async def _all(engine: Engine) -> AsyncIterator[Diagnosis]:
    yield _settings(engine)
    yield await _repository(engine)
    yield _password(engine)
    yield await kit_diagnosis(engine)
    yield await approval_diagnosis(engine)
    yield await _newest(engine)
    for spec in engine.settings.sources():
        yield await _source(spec)
    for name, directory in (("scratch", engine.settings.scratch), ("state", engine.state)):
        yield await to_thread.run_sync(_room, name, directory)
    yield _restic()


def _settings(engine: Engine) -> Diagnosis:
    file = engine.settings.file
    return Diagnosis("ok", "settings", str(file) if file else "from the environment")


async def _repository(engine: Engine) -> Diagnosis:
    location = engine.repository.store.location
    try:
        count = len(await engine.catalog.backups())
    except BackupError as error:
        return Diagnosis("problem", "repository", f"{location}: {error}", error.hint)
    return Diagnosis("ok", "repository", f"{location} opens and lists {count} snapshots")


def _password(engine: Engine) -> Diagnosis:
    file = engine.settings.repository.password_file
    if file is None or not file.exists():
        return Diagnosis("ok", "password", "comes from a command or the environment")
    risk = password_file_risk(file)
    if risk:
        return Diagnosis("warning", "password", risk, f"Run `chmod 600 {file}`.")
    if file.parent == Path(engine.repository.store.location).parent:
        return Diagnosis(
            "warning",
            "password",
            f"{file} lies beside the repository: one lost disk takes both",
            "Keep a copy of it somewhere else, on paper for one. Without it, no backup opens.",
        )
    return Diagnosis("ok", "password", f"{file} is readable by its owner alone")


async def _newest(engine: Engine) -> Diagnosis:
    page = await engine.backups(limit=1)
    if not page.entries:
        return Diagnosis("warning", "newest backup", "there is none", "Run `mcp-backup create`.")
    entry = page.entries[0]
    age = engine.now() - entry.time
    told = f"{entry.backup_id} is {age.total_seconds() / 3600:.1f} hours old"
    if age > _OLD:
        return Diagnosis("warning", "newest backup", told, "Run `mcp-backup create`.")
    return Diagnosis("ok", "newest backup", told)


async def _source(spec: SourceSpec) -> Diagnosis:
    subject = f"{spec.component} {spec.name}"
    try:
        if spec.kind not in MODULES:
            return Diagnosis(
                "problem",
                subject,
                f"{spec.path} is of kind {spec.kind}, which this version does not back up",
                "Remove the source, or export it by other means.",
            )
        if spec.kind in REMOTE:
            return Diagnosis("ok", subject, await reach(spec))
        if not await to_thread.run_sync(Path(spec.path).exists):
            return Diagnosis(
                "problem",
                subject,
                f"{spec.path} does not exist",
                "Correct the path in the settings, or remove the source.",
            )
        if spec.component is Component.DATABASES and not await is_sound(spec):
            return Diagnosis(
                "problem",
                subject,
                f"{spec.path} is damaged, or not a {spec.kind} database",
                "Restore it from a backup, or correct the path.",
            )
        held = await holders(spec)
        told = await reach(spec) if spec.kind == "duckdb" else f"{spec.path} can be read"
    except BackupError as error:
        return Diagnosis("problem", subject, str(error), error.hint)
    count = len({holder.pid for holder in held})  # of which each may hold several files
    users = f", open in {count} process{'es' if count > 1 else ''}" if held else ""
    return Diagnosis("ok", subject, f"{told}{users}")


def _room(name: str, directory: Path) -> Diagnosis:
    there = directory
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        return Diagnosis(
            "problem", name, f"{there} is not writable", "Make it writable, or choose another."
        )
    free = shutil.disk_usage(there).free
    told = f"{directory}: {free / 1e9:.1f} GB free"
    if free < _LOW_BYTES:
        return Diagnosis("warning", name, told, "A restore needs room for what it stages.")
    return Diagnosis("ok", name, told)


def _restic() -> Diagnosis:
    path = shutil.which("restic")
    if path is None:
        return Diagnosis(
            "ok", "restic", "not installed here; any copy of it opens the repository too"
        )
    return Diagnosis("ok", "restic", f"{path} opens the repository too")
