"""What a page's placeholders mean on this installation.

config repository password_file state    where things are
source path file component kind          the source that is to be restored, its live path, its
                                         file's name in a backup
backup                                   the backup to restore
stop start check                         the owner's commands, from [recovery]
rto rpo source_rto                       what drills and history measured
walked                                   how long this page took when it was last walked
"""

from collections.abc import Mapping
from pathlib import Path

from mcp_backup.engine import Engine
from mcp_backup.errors import UnknownSource, UsageError
from mcp_backup.proof.choosing import in_start_order
from mcp_backup.proof.objectives import recovery
from mcp_backup.proof.walks import last_walk, read_walks
from mcp_backup.runbook.pages import Page
from mcp_backup.settings import Settings
from mcp_backup.sources.source import Component, SourceSpec

_OWN = 'echo "your own command: set recovery.{} in the settings"'


def of_settings(settings: Settings, source: str = "") -> dict[str, str]:
    """Return what the settings alone tell.

    Raises:
        UnknownSource: there is no such source.
    """
    values = {
        "config": str(settings.file or ""),
        "repository": settings.repository.location,
        "password_file": str(settings.repository.password_file or ""),
        "state": str(settings.state_dir),
        "stop": settings.recovery.stop or _OWN.format("stop"),
        "start": settings.recovery.start or _OWN.format("start"),
        "check": settings.recovery.check or _OWN.format("check"),
        "order": ", ".join(spec.name for spec in in_start_order(settings)),
    }
    spec = _chosen(settings, source)
    if spec is not None:
        values |= {
            "source": spec.name,
            "component": spec.component.value,
            "kind": spec.kind,
            "path": spec.path,
            "file": Path(spec.path).name,
        }
    return values


async def of_engine(engine: Engine, source: str = "", backup: str = "") -> dict[str, str]:
    """Return what this installation tells: also its newest backup, and what was measured.

    Raises:
        UnknownBackup: there is no backup of that id.
    """
    values = of_settings(engine.settings, source)
    measured = await recovery(engine)
    one = measured.source(values.get("component", ""), values.get("source", ""))
    values["rto"] = _seconds(measured.seconds)
    values["source_rto"] = _seconds(one.seconds if one else None)
    values["rpo"] = f"{one.rpo_hours:.1f} h" if one and one.rpo_hours is not None else "unknown"
    known = [each for each in await engine.catalog.backups() if each.ours]
    if backup:
        values["backup"] = (await engine.catalog.find(backup)).backup_id
    elif known:
        values["backup"] = known[0].backup_id
    return values


def of_walks(settings: Settings, page: str) -> dict[str, str]:
    """Return how long the page took when it was last walked to its end. Blocks."""
    walk = last_walk(read_walks(settings.state_dir), page)
    if walk is None:
        return {"walked": f"not yet; `mcp-backup runbook drill {page}` walks it"}
    how = "live" if walk.mode == "live" else "as a drill"
    return {"walked": f"{how}, in {_seconds(walk.seconds)}, on {walk.started:%Y-%m-%d}"}


def refuse_stranger(page: Page, values: Mapping[str, str]) -> None:
    """Refuse to run the commands of a page that asks SQLite on a source of another kind.

    Raises:
        UsageError: says what to do instead.
    """
    commands = (command.text for block in page.blocks for command in block.commands)
    kind = values.get("kind", "sqlite")
    if kind != "sqlite" and any("sqlite3 " in text for text in commands):
        raise UsageError(
            f"the page {page.name} asks SQLite, and source {values['source']!r} is of kind {kind}",
            hint=f"Name an SQLite database with --source, or `mcp-backup runbook print {page.name}`"
            " and follow what it says of others. Nothing was run.",
        )


def of_words(words: Mapping[str, str]) -> dict[str, str]:
    """Return values as they were given, name by name.

    Raises:
        UsageError: a name that no placeholder can have.
    """
    for name in words:
        if not name.replace("_", "").isalpha() or not name.islower():
            raise UsageError(f"{name!r:.40} is no placeholder", hint="Write --value table=notes.")
    return dict(words)


def _chosen(settings: Settings, source: str) -> SourceSpec | None:
    specs = in_start_order(settings)
    if source:
        named = [spec for spec in specs if spec.name == source]
        if not named:
            raise UnknownSource(source, [spec.name for spec in specs])
        return named[0]
    databases = [spec for spec in specs if spec.component is Component.DATABASES]
    databases.sort(key=lambda spec: spec.kind != "sqlite")  # which the pages are printed for
    return next(iter(databases or specs), None)


def _seconds(value: float | None) -> str:
    if value is None:
        return "not measured yet: run `mcp-backup drill`"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"
