"""The tables of the settings file that are about sources, rhythm and keeping.

Paths are absolute by the time they arrive here: `settings.py` knows what they are relative to.
"""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from mcp_backup.settings_drills import CheckSettings
from mcp_backup.settings_postgres import ServerFields, address, complete, refuse_stray
from mcp_backup.settings_postgres import options as server_options
from mcp_backup.settings_table import (
    Filled,
    Pattern,
    Refused,
    Repeated,
    Section,
    SourceName,
    UsablePath,
    shaped,
)
from mcp_backup.sources.source import Component, SourceSpec

_SQLITE_MAGIC = b"SQLite format 3\0"
_DUCKDB_MAGIC = b"DUCK"  # after an 8-byte checksum

_HOUR = r"([01]\d|2[0-3]):[0-5]\d"
_DAY = "(mon|tues|wednes|thurs|fri|satur|sun)day"

Location = Annotated[str, shaped(r"(?s)\A(?=.*\S)[^\0]*\Z", "be a path")]
Count = Annotated[int, Meta(ge=0)]
Hours = Annotated[float, Meta(gt=0)]
TimeOfDay = Annotated[str, shaped(rf"\A({_HOUR}|never)\Z", 'be a time such as "02:00"')]
WeekTime = Annotated[
    str, shaped(rf"\A({_DAY} {_HOUR}|never)\Z", 'be a day and time such as "sunday 03:00"')
]


class RepositorySettings(Section, frozen=True, kw_only=True):
    """Where backups are kept and what opens them. A local `location` is an absolute path."""

    location: Location
    password_file: UsablePath | None = None
    password_command: Filled | None = None
    append_only: bool = False  # this machine adds backups and deletes none

    def __post_init__(self) -> None:
        """Refuse two passwords."""
        if self.password_file and self.password_command:
            raise Refused("must have `password_file` or `password_command`, not both")


class RetentionSettings(Section, frozen=True, kw_only=True):
    """How many backups of each tier are kept, and how many of each source at least."""

    daily: Count = 30
    weekly: Count = 12
    monthly: Count = 6
    minimum: Count = 3


class ScheduleSettings(Section, frozen=True, kw_only=True):
    """When backups are made by themselves; each day's reads what changed, each week's all.

    "never" leaves one of them out, and is `None` here.
    """

    enabled: bool = True
    timezone: str = "local"
    daily: TimeOfDay | None = "02:00"
    weekly: WeekTime | None = "sunday 03:00"
    drill: WeekTime | None = "sunday 04:00"

    def __post_init__(self) -> None:
        """Refuse zones that this machine does not know, and make "never" `None`."""
        if self.timezone != "local":
            try:
                import_module("zoneinfo").ZoneInfo(self.timezone)  # most are "local"
            except (OSError, ValueError, LookupError):
                raise Refused(
                    'must be "local" or a zone this machine knows, such as "Europe/Oslo"',
                    "timezone",
                ) from None
        for name in ("daily", "weekly", "drill"):
            if getattr(self, name) == "never":
                force_setattr(self, name, None)


class ObjectivesSettings(Section, frozen=True, kw_only=True):
    """How much may be lost, and how long getting it back may take, in hours."""

    rpo_hours: Hours = 24
    rto_hours: Hours = 4


class DatabaseSettings(ServerFields, frozen=True, kw_only=True):
    """One database. Without a `kind`, the file's header tells; one of a server has no `path`."""

    name: SourceName
    path: UsablePath | None = None
    kind: Literal["sqlite", "duckdb", "postgres"] | None = None
    exclude_tables: tuple[Filled, ...] = ()
    checks: tuple[CheckSettings, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is not one database, of a file or of a server."""
        super().__post_init__()
        if self.kind == "postgres":
            if self.path is not None:
                raise Refused('must not have `path`: its `kind` is "postgres"; use `dbname`')
            complete(self)
        else:
            if self.path is None:
                raise Refused("is missing", "path")
            refuse_stray(self)

    def spec(self) -> SourceSpec:
        """Return the source; reads the file's first bytes when `kind` is left out."""
        if self.path is None:
            words = server_options(self) | {"exclude_tables": list(self.exclude_tables)}
            where = address(words["connection"])
            return SourceSpec(self.name, Component.DATABASES, "postgres", where, words)
        kind = self.kind or _kind_of(self.path)
        options = {"exclude_tables": list(self.exclude_tables)}
        return SourceSpec(self.name, Component.DATABASES, kind, str(self.path), options)


class ConfigSettings(Repeated, frozen=True, kw_only=True):
    """One set of files: what `include` matches below `root` and `exclude` does not."""

    name: SourceName
    root: UsablePath
    include: Annotated[tuple[Pattern, ...], Meta(min_length=1)]
    exclude: tuple[Pattern, ...] = ()

    def spec(self) -> SourceSpec:
        """Return the source."""
        options = {"include": list(self.include), "exclude": list(self.exclude)}
        return SourceSpec(self.name, Component.CONFIG, "files", str(self.root), options)


class RestoreSettings(Section, frozen=True, kw_only=True):
    """How a restore is agreed to, and what it leaves behind."""

    confirmation: Literal["human", "elicit", "token"] = "human"
    plan_minutes: Annotated[int, Meta(ge=1, le=7 * 24 * 60)] = 60
    scratch: UsablePath | None = None
    undo_keep: Annotated[int, Meta(ge=1)] = 5


def _kind_of(path: Path) -> str:
    """Tell a database's kind from its header. What cannot be read is for the worker to explain."""
    try:
        if path.is_dir():  # of several files, which no other kind has
            return "duckdb"
        if not path.is_file():  # opening a pipe or a device would wait for it
            return "sqlite"
        with path.open("rb") as file:
            header = file.read(len(_SQLITE_MAGIC))
    except OSError:
        return "sqlite"
    return "duckdb" if header[8:12] == _DUCKDB_MAGIC else "sqlite"
