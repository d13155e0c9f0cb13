"""Finding what an operator may want backed up, for `init` to propose.

Bounded on purpose: a few directories, a few levels, a few seconds; what was cut short is said in
`Found.complete`. Databases are told by their headers, not their names. Nothing is opened beyond
its first bytes, apart from the JSON files that configure MCP servers; of those only the paths of
databases come out, never a value that may be a secret.

A candidate is `near` when the operator plainly means it: it lies below the directory `init` runs
in, or an MCP server is started with its path. What merely lies in the usual places of this user's
programs is reported, and left out unless asked for.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.discovery_postgres import PostgresFound, databases_of, services
from mcp_backup.discovery_servers import WorkflowsFound, documents_in, workflows_of
from mcp_backup.discovery_shards import shard_roots

_HEADER_SIZE = 16
_SQLITE = b"SQLite format 3\0"
_DUCKDB = b"DUCK"  # at offset 8, after a checksum
_NEAR_DEPTH = 6
_FAR_DEPTH = 4
_MOST_FAR = 20  # a longer list is not read
_PASSED_OVER = frozenset(
    {".cache", ".git", ".hg", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
    | {".svn", ".tox", ".venv", "Trash", "__pycache__", "node_modules", "site-packages"}
    | {"target", "venv"}
)
_SIDE_FILES = ("-wal", "-shm", "-journal")
_FAR_SUFFIXES = (".db", ".db3", ".duckdb", ".sqlite", ".sqlite3")
_USUAL_PLACES = (".local/share", ".config", "Library/Application Support")
_CONFIG_FILES = (".env", ".mcp.json", "mcp.json", "pyproject.toml", ".cursor/mcp.json")
_CONFIG_SETS = (("settings", "*.yaml"), ("settings", "*.yml"), ("settings", "*.toml"))
_SERVER_FILES = (".mcp.json", "mcp.json", ".cursor/mcp.json")
_USER_SERVER_FILES = (
    ".claude.json",
    ".cursor/mcp.json",
    ".config/Claude/claude_desktop_config.json",
    "Library/Application Support/Claude/claude_desktop_config.json",
)

DatabaseKind = Literal["sqlite", "duckdb"]


class DatabaseFound(Struct, frozen=True):
    """A database file, or a directory of DuckDB files.

    `name` is unique among those found; `size` is bytes.
    """

    name: str
    path: Path
    kind: DatabaseKind
    size: int
    near: bool


class FilesFound(Struct, frozen=True):
    """Settings files below `root`, as patterns relative to it."""

    name: str
    root: Path
    include: tuple[str, ...]


class Found(Struct, frozen=True):
    """Everything found. `complete` is False when time ran out first."""

    databases: tuple[DatabaseFound, ...]
    files: tuple[FilesFound, ...]
    servers: tuple[str, ...]
    complete: bool
    workflows: tuple[WorkflowsFound, ...] = ()
    postgres: tuple[PostgresFound, ...] = ()


def find(
    cwd: Path, home: Path, *, passed_over: frozenset[Path], clock: Callable[[], float]
) -> Found:
    """Look below `cwd`, where MCP servers point, and in the usual places below `home`.

    `clock` returns seconds, and only its differences matter. Directories in `passed_over` are not
    entered.
    """
    search = _Search(clock, clock() + 5.0, passed_over)
    configured = list(_all_configured(cwd, home))
    servers = _servers(configured, home)
    workflows: dict[str, WorkflowsFound] = {}
    if cwd not in (home, *home.parents):  # all of a home is nobody's plain meaning
        search.add(search.files(cwd, _NEAR_DEPTH), near=True)
        search.gather_shards(cwd)
        workflows = {found.name: found for found in documents_in(cwd, _PASSED_OVER)}
    for name, path in sorted(servers.items()):
        search.add(iter(path), near=True, name=name)
    for place in _USUAL_PLACES:
        search.add(_looks_like_one(search.files(home / place, _FAR_DEPTH)), near=False)
    config = _config_files(cwd)
    workflows |= {
        found.name: found for name, server in configured for found in workflows_of(name, server)
    }
    return Found(
        tuple(search.found),
        config,
        tuple(sorted(servers)),
        search.complete,
        tuple(workflows.values()),
        search.apart(
            [*(found for name, server in configured for found in databases_of(name, server))],
            [*services(home)],
        ),
    )


class _Search:
    """One search: what it found, under names that do not repeat, and whether time ran out."""

    def __init__(
        self, clock: Callable[[], float], deadline: float, passed_over: frozenset[Path]
    ) -> None:
        self._clock = clock
        self._deadline = deadline
        self._passed_over = passed_over
        self._seen: set[Path] = set()
        self._names: set[str] = set()
        self.found: list[DatabaseFound] = []
        self.complete = True

    def files(self, root: Path, depth: int) -> Iterator[Path]:
        """Yield regular files below `root`, sorted, following no links, until time runs out."""
        if self._clock() > self._deadline:
            self.complete = False
            return
        directories, files = _listed(root)
        yield from files
        if depth == 0:
            return
        for directory in directories:
            if directory not in self._passed_over and not _is_repository(directory):
                yield from self.files(directory, depth - 1)

    def add(self, paths: Iterator[Path], *, near: bool, name: str = "") -> None:
        """Keep those of `paths` that are databases and have not been found yet."""
        for path in paths:
            far = sum(not found.near for found in self.found)
            if path in self._seen or (not near and far >= _MOST_FAR):
                continue
            kind = _kind(path)
            if kind is not None:
                self._seen.add(path)
                unique = self._unique(name or path.stem)
                self.found.append(DatabaseFound(unique, path, kind, path.stat().st_size, near))

    def gather_shards(self, top: Path) -> None:
        """Make one source of what is plainly one database in many DuckDB files."""
        ducks = [found for found in self.found if found.kind == "duckdb"]
        for root in shard_roots([found.path for found in ducks], top):
            inside = [found for found in ducks if root in found.path.parents]
            place = self.found.index(inside[0])
            self.found = [found for found in self.found if found not in inside]
            self._names -= {found.name for found in inside}
            size = sum(found.size for found in inside)
            one = DatabaseFound(self._unique(root.name), root, "duckdb", size, near=True)
            self.found.insert(place, one)

    def apart(self, *found: Sequence[PostgresFound]) -> tuple[PostgresFound, ...]:
        """Return those that differ in more than their name, under names that do not repeat."""
        different: dict[str, PostgresFound] = {}
        for each in (each for many in found for each in many):
            different.setdefault(repr(each.settings), each)
        return tuple(replace(each, name=self._unique(each.name)) for each in different.values())

    def _unique(self, wanted: str) -> str:
        name = base = _slug(wanted)
        number = 2
        while name in self._names:
            name, number = f"{base}-{number}", number + 1
        self._names.add(name)
        return name


def _listed(root: Path) -> tuple[list[Path], list[Path]]:
    directories: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(root) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _PASSED_OVER:
                        directories.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False) and _is_text(entry.name):
                    files.append(Path(entry.path))
    except OSError:  # gone, or not ours to read: nothing to propose
        return [], []
    return directories, files


def _is_text(name: str) -> bool:
    """Whether the name can be written into a settings file."""
    return name.isprintable() and not name.endswith(_SIDE_FILES)


def _is_repository(directory: Path) -> bool:
    return (directory / "config").is_file() and (directory / "snapshots").is_dir()


def _looks_like_one(paths: Iterator[Path]) -> Iterator[Path]:
    return (path for path in paths if path.suffix in _FAR_SUFFIXES)


def _kind(path: Path) -> DatabaseKind | None:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
    except OSError:
        return None
    if header == _SQLITE:
        return "sqlite"
    return "duckdb" if header[8:12] == _DUCKDB else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "database"


def _config_files(cwd: Path) -> tuple[FilesFound, ...]:
    include = [name for name in _CONFIG_FILES if (cwd / name).is_file()]
    include += [
        f"{place}/{pattern}"
        for place, pattern in _CONFIG_SETS
        if any(path.is_file() for path in (cwd / place).glob(pattern))
    ]
    name = _slug(cwd.name) if cwd.name else "config"
    return (FilesFound(name, cwd, tuple(include)),) if include else ()


def _servers(configured: list[tuple[str, object]], home: Path) -> dict[str, list[Path]]:
    """MCP servers by name, each with the existing files that its arguments and environment name."""
    found: dict[str, list[Path]] = {}
    for name, server in configured:
        found.setdefault(name, []).extend(_named_files(server, home))
    return found


def _all_configured(cwd: Path, home: Path) -> Iterator[tuple[str, object]]:
    """Yield every MCP server that a client here is configured with."""
    places = [cwd / name for name in _SERVER_FILES] + [home / name for name in _USER_SERVER_FILES]
    for place in places:
        yield from _configured(place).items()


def _configured(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):  # absent, or not ours to judge
        return {}
    servers = document.get("mcpServers") if isinstance(document, dict) else None
    return servers if isinstance(servers, dict) else {}


def _named_files(server: object, home: Path) -> Iterator[Path]:
    if not isinstance(server, dict):
        return
    arguments, environment = server.get("args"), server.get("env")
    values = list(arguments) if isinstance(arguments, list) else []
    values += list(environment.values()) if isinstance(environment, dict) else []
    for value in values:
        text = value.split("=", 1)[-1] if isinstance(value, str) else ""
        path = Path(text.replace("~", str(home), 1) if text.startswith("~/") else text)
        if path.is_absolute() and "\0" not in text and path.is_file() and text.isprintable():
            yield path
