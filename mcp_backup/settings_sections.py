"""The tables of the settings file, each frozen and closed to keys it does not know.

Paths are absolute by the time they arrive here: `settings.py` knows what they are relative to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from mcp_backup.cron import Cron
from mcp_backup.settings_drills import CheckSettings
from mcp_backup.settings_postgres import ServerFields, address, complete, refuse_stray
from mcp_backup.settings_postgres import options as server_options
from mcp_backup.sources.source import Component, SourceSpec

_SQLITE_MAGIC = b"SQLite format 3\0"
_DUCKDB_MAGIC = b"DUCK"  # after an 8-byte checksum


def _source_name(name: str) -> str:
    # it becomes a directory in every snapshot, and an argument on command lines
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    if not name or len(name) > 100 or name[0] in ".-" or not set(name) <= allowed:
        raise ValueError(
            "must be 1 to 100 letters, digits, '.', '_' or '-', and not begin with '.' or '-'"
        )
    return name


def _usable_path(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError("must be a path")
    return value


def _pattern(pattern: str) -> str:
    if not pattern or pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
        raise ValueError("must be a pattern below `root`: not absolute, without `..`")
    return pattern


def _timezone(name: str) -> str:
    if name != "local":
        try:
            ZoneInfo(name)
        except (OSError, ValueError, LookupError):
            raise ValueError(
                'must be "local" or a zone this machine knows, such as "Europe/Oslo"'
            ) from None
    return name


def _cron(text: str) -> str:
    Cron.parse(text)
    return text


def _never(value: object) -> object:
    return None if value == "never" else value


SourceName = Annotated[str, AfterValidator(_source_name)]
UsablePath = Annotated[Path, BeforeValidator(_usable_path)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Filled = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
WeekTime = Annotated[
    str,
    Field(pattern=r"^(mon|tues|wednes|thurs|fri|satur|sun)day ([01]\d|2[0-3]):[0-5]\d$"),
]

Interval = Annotated[str, Field(pattern=r"^([1-9]|[1-9]\d{1,3})[mhd]$")]


class Section(BaseModel):
    """A table of the settings: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RepositorySettings(Section):
    """Where backups are kept and what opens them. A local `location` is an absolute path."""

    location: Annotated[Filled, BeforeValidator(_usable_path)]
    password_file: UsablePath | None = None
    password_command: Filled | None = None
    append_only: bool = False  # this machine adds backups and deletes none

    @model_validator(mode="after")
    def _one_password(self) -> "RepositorySettings":
        if self.password_file and self.password_command:
            raise ValueError("must have `password_file` or `password_command`, not both")
        return self


class RetentionSettings(Section):
    """How many backups of each tier are kept, and how many of each source at least."""

    daily: Count = 30
    weekly: Count = 12
    monthly: Count = 6
    minimum: Count = 3


class ScheduleSettings(Section):
    """When backups are made by themselves; each day's reads what changed, each week's all.

    "never" leaves one of them out, and is `None` here.
    """

    enabled: bool = True
    timezone: Annotated[str, AfterValidator(_timezone)] = "local"
    daily: Annotated[TimeOfDay | None, BeforeValidator(_never)] = "02:00"
    weekly: Annotated[WeekTime | None, BeforeValidator(_never)] = "sunday 03:00"
    drill: Annotated[WeekTime | None, BeforeValidator(_never)] = "sunday 04:00"


class Repeated(Section):
    """A source that may be backed up more often than the schedule says."""

    every: Interval | None = None
    cron: Annotated[str, AfterValidator(_cron)] | None = None

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if self.every and self.cron:
            raise ValueError("must have `every` or `cron`, not both")
        return self


class ObjectivesSettings(Section):
    """How much may be lost, and how long getting it back may take, in hours."""

    rpo_hours: Annotated[float, Field(gt=0)] = 24
    rto_hours: Annotated[float, Field(gt=0)] = 4


class DatabaseSettings(Repeated, ServerFields):
    """One database. Without a `kind`, the file's header tells; one of a server has no `path`."""

    name: SourceName
    path: UsablePath
    kind: Literal["sqlite", "duckdb", "postgres"] | None = None
    exclude_tables: tuple[Filled, ...] = ()
    checks: tuple[CheckSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _no_path_of_a_server(cls, values: object) -> object:
        if not isinstance(values, Mapping) or values.get("kind") != "postgres":
            return values
        if "path" in values:
            raise ValueError('must not have `path`: its `kind` is "postgres"; use `dbname`')
        return {**values, "path": Path("/")}  # which nobody reads

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        (complete if self.kind == "postgres" else refuse_stray)(self)
        return self

    def spec(self) -> SourceSpec:
        """Return the source; reads the file's first bytes when `kind` is left out."""
        if self.kind == "postgres":
            words = server_options(self) | {"exclude_tables": list(self.exclude_tables)}
            where = address(words["connection"])
            return SourceSpec(self.name, Component.DATABASES, self.kind, where, words)
        kind = self.kind or _kind_of(self.path)
        options = {"exclude_tables": list(self.exclude_tables)}
        return SourceSpec(self.name, Component.DATABASES, kind, str(self.path), options)


class ConfigSettings(Repeated):
    """One set of files: what `include` matches below `root` and `exclude` does not."""

    name: SourceName
    root: UsablePath
    include: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    exclude: tuple[Pattern, ...] = ()

    def spec(self) -> SourceSpec:
        """Return the source."""
        options = {"include": list(self.include), "exclude": list(self.exclude)}
        return SourceSpec(self.name, Component.CONFIG, "files", str(self.root), options)


class RestoreSettings(Section):
    """How a restore is agreed to, and what it leaves behind."""

    confirmation: Literal["human", "elicit", "token"] = "human"
    plan_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = 60
    scratch: UsablePath | None = None
    undo_keep: Annotated[int, Field(ge=1)] = 5


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
