"""What the operator wrote: TOML, then the environment; closed, absolute, frozen.

Found at `--config`, `$MCP_BACKUP_CONFIG`, `./mcp-backup.toml`, the user's config directory: the
first that is named or exists. `MCP_BACKUP_REPOSITORY__LOCATION` overrides `repository.location`,
and so on for every setting; lists are given as JSON. Relative paths in the file are relative to
the file's directory, those in the environment to the working directory; `~` is expanded.

Loading looks at no source and no repository: settings load even when a database is missing, so
that its failure is one source's and not everybody's.
"""

import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from mcp_backup.errors import SettingsInvalid
from mcp_backup.password import resolve_password
from mcp_backup.secret import Secret
from mcp_backup.settings_alerts import AlertSettings, refuse_label_twice
from mcp_backup.settings_drills import DrillSettings, RecoverySettings
from mcp_backup.settings_sections import (
    ConfigSettings,
    DatabaseSettings,
    ObjectivesSettings,
    RepositorySettings,
    RestoreSettings,
    RetentionSettings,
    ScheduleSettings,
)
from mcp_backup.settings_server import ServerSettings
from mcp_backup.settings_table import Refused, Section, UsablePath, checked
from mcp_backup.settings_workflows import WorkflowSettings
from mcp_backup.sources.source import SourceSpec

FILE_NAME = "mcp-backup.toml"
PREFIX = "MCP_BACKUP_"
_APART = {"MCP_BACKUP_CONFIG", "MCP_BACKUP_PASSWORD", "MCP_BACKUP_URL"}  # read, but no settings
_APART |= {"MCP_BACKUP_TOKEN"}

_PATHS = (  # the settings that are paths, and so relative to somewhere
    ("repository", "location"),
    ("repository", "password_file"),
    ("restore", "scratch"),
    ("server", "tls_cert"),
    ("server", "tls_key"),
    ("server", "oauth", "jwks_file"),
    ("state_dir",),
    ("databases", "path"),
    ("config", "root"),
    ("workflows", "path"),
    ("workflows", "token_file"),
)


class Written(Section, frozen=True, kw_only=True):
    """Everything that a settings file may hold."""

    repository: RepositorySettings
    retention: RetentionSettings = RetentionSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    objectives: ObjectivesSettings = ObjectivesSettings()
    databases: tuple[DatabaseSettings, ...] = ()
    config: tuple[ConfigSettings, ...] = ()
    workflows: tuple[WorkflowSettings, ...] = ()
    restore: RestoreSettings = RestoreSettings()
    drills: DrillSettings = DrillSettings()
    recovery: RecoverySettings = RecoverySettings()
    server: ServerSettings = ServerSettings()
    alerts: tuple[AlertSettings, ...] = ()
    state_dir: UsablePath = msgspec.field(default_factory=lambda: _user_directory("state"))

    def __post_init__(self) -> None:
        """Refuse names that are used twice."""
        for field in ("databases", "config", "workflows"):
            seen: set[str] = set()
            for item in getattr(self, field):
                if item.name.casefold() in seen:  # they would be one directory on many disks
                    raise Refused(f"{field}: the name {item.name!r} is used twice")
                seen.add(item.name.casefold())
        refuse_label_twice(self.alerts)


class Settings(Written, frozen=True, kw_only=True):
    """Everything the operator decides. Built by `load_settings`, or by hand from absolute paths.

    `file` is where it was written; `None` if it came from the environment alone.
    """

    file: Path | None = None

    @property
    def scratch(self) -> Path:
        """Where restores are staged and scratch restores are left."""
        return self.restore.scratch or self.state_dir / "scratch"

    def sources(self) -> list[SourceSpec]:
        """Return what is to be backed up, in the order written; databases first.

        Reads the first bytes of databases whose `kind` was left out; never fails for them.
        """
        databases = [database.spec() for database in self.databases]
        files = [files.spec() for files in self.config]
        return databases + files + [workflows.spec() for workflows in self.workflows]


_WRITTEN = Written.__struct_fields__


def load_settings(config: Path | None, environ: Mapping[str, str], cwd: Path) -> Settings:
    """Find the settings file, read it, and let the environment override it.

    `config` is what `--config` named. `environ` and `cwd` are the process's.

    Raises:
        SettingsInvalid: nothing was found, or what was found cannot be meant; the message names
            the file or variable, the setting, what is expected there and what was found.
    """
    file = _found(config, environ, cwd)
    from_environment = _from_environment(environ)
    if file is None and not from_environment:
        raise SettingsInvalid(
            f"no settings: neither {cwd / FILE_NAME} nor {_user_file()} exists",
            hint="Run `mcp-backup init`, or name a settings file with --config or "
            "MCP_BACKUP_CONFIG.",
        )
    from_file = _from_file(file) if file else {}
    for keys in _PATHS:
        key = ".".join(keys)
        _anchor(from_file, keys, file.parent if file else cwd, f"{file}: {key}")
        _anchor(from_environment, keys, cwd, f"the environment: {key}")
    return _validated(from_file, from_environment, file)


def repository_password(settings: Settings, environ: Mapping[str, str]) -> Secret:
    """Return the repository's password: MCP_BACKUP_PASSWORD, else `password_file` or its command.

    Blocks while a command runs.

    Raises:
        SettingsInvalid: there is none, or it cannot be read, or it is empty.
    """
    repository = settings.repository
    directory = settings.file.parent if settings.file else None
    return resolve_password(
        repository.password_file, repository.password_command, environ, directory
    )


def _found(config: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = config or (
        Path(environ["MCP_BACKUP_CONFIG"]) if environ.get("MCP_BACKUP_CONFIG") else None
    )
    if named:
        return cwd / _expanded(str(named), "--config" if config else "MCP_BACKUP_CONFIG")
    return next((file for file in (cwd / FILE_NAME, _user_file()) if file.exists()), None)


def _user_file() -> Path:
    return _user_directory("config") / FILE_NAME


def _user_directory(purpose: str) -> Path:
    """Return where a user's state or config belongs. Loads what knows; most settings say it."""
    dirs = import_module("platformdirs").PlatformDirs("mcp-backup", appauthor=False)
    found: Path = getattr(dirs, f"user_{purpose}_path")
    return found


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SettingsInvalid(
            f"the settings file {file} cannot be read: {error.strerror}",
            hint="Correct --config or MCP_BACKUP_CONFIG, or run `mcp-backup init` to make one.",
        ) from error
    except (ValueError, RecursionError) as error:  # of TOML or of UTF-8; both say where
        raise SettingsInvalid(
            f"{file} is not TOML: {error}",
            hint="Correct that line; text stands in quotes, sections in [brackets].",
        ) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    ours = {
        name: value
        for name, value in environ.items()
        if name.upper().startswith(PREFIX) and name.upper() not in _APART
    }
    for name in ours:
        if name.upper().removeprefix(PREFIX).split("__")[0].lower() not in _WRITTEN:
            wording = import_module("mcp_backup.settings_wording")
            unknown: SettingsInvalid = wording.unknown_variable(name, PREFIX, Written, _APART)
            raise unknown
    if not ours:  # which is usual; what reads them takes as long to load as the settings
        return {}
    read: dict[str, Any] = import_module("mcp_backup.settings_environment").read(ours)
    return read


def _anchor(values: dict[str, Any], keys: tuple[str, ...], base: Path, where: str) -> None:
    """Make the path at `keys` absolute; what is no text there is left for validation to refuse."""
    key, *rest = keys
    value = values.get(key)
    if rest:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                _anchor(item, tuple(rest), base, where)
    elif isinstance(value, str) and value.strip() and "://" not in value:
        values[key] = str(base / _expanded(value, where))


def _expanded(path: str, where: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SettingsInvalid(
            f"{where}: {path!r:.120}: {error}", hint="Write the path in full."
        ) from None


def _validated(
    from_file: Mapping[str, Any], from_environment: Mapping[str, Any], file: Path | None
) -> Settings:
    values = _merged(from_file, from_environment)
    written = checked(Written, values, (file, from_environment))
    return Settings(file=file, **{name: getattr(written, name) for name in _WRITTEN})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            merged[key] = _merged(under, value)
        else:
            merged[key] = value
    return merged
