"""The kinds of sources: one module each, with these functions. They run in a worker process.

A kind's module is loaded when a source of that kind is met, and in the worker only: no process
loads the library of a database it does not read.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast

from msgspec import Struct

from mcp_backup.errors import SettingsInvalid, SourceUnreadable
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Evidence, Finding, Holder, SourceSpec

MODULES: Mapping[str, str] = {
    "sqlite": "mcp_backup.sources.sqlite",
    "duckdb": "mcp_backup.sources.duckdb",
    "files": "mcp_backup.sources.files",
    "postgres": "mcp_backup.sources.postgres",
    "workflows": "mcp_backup.sources.workflows",
}

_LIBRARIES: Mapping[str, str] = {"postgres": "psycopg"}  # those that come with an extra
GLANCED: Mapping[str, str] = {  # kinds whose live state `glance` tells, which a module words
    "sqlite": "mcp_backup.sources.sqlite_file",  # 45 ms less than with SQLite, of 110
}
OPENED = frozenset({"sqlite", "duckdb"})  # kinds that can say of a proven copy that it opens
SILENT = frozenset({"postgres", "workflows"})  # kinds of which it cannot be told


class KeptCopy(Struct, frozen=True):
    """What an undo point holds. `size` is its bytes on disk.

    `state` is "present" (a consistent copy), "damaged" (the raw files, since no consistent copy
    could be had) or "absent" (there was nothing to keep, and putting back will remove). `content`
    is the content digest of a database's copy where the copying told it, else "".
    """

    state: Literal["present", "damaged", "absent"]
    size: int
    content: str = ""


class Rehearsal(Struct, frozen=True):
    """What a copy on a server that never goes live was found to be.

    `unable` says why none could be made, and what to do: then nothing is known of the backup.
    `notes` are what such a copy could not be given.
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    unable: str = ""


class Kind(Protocol):
    """What a kind of source can do. Every function raises `BackupError`s, or `OSError`."""

    def capture(self, spec: SourceSpec, sink: Sink, scratch: Path) -> Evidence:
        """Read the source at one point in time into `sink`; `scratch` is an empty directory."""
        ...

    def fingerprint(self, spec: SourceSpec) -> str:
        """Identify the live state cheaply; "" while nothing sound can be said."""
        ...

    def examine(self, directory: Path, evidence: Evidence | None) -> list[Finding]:
        """Compare a staged copy with what was seen at its capture, without changing its bytes."""
        ...

    def holders(self, spec: SourceSpec) -> list[Holder]:
        """Find the processes that have the source's files open."""
        ...

    def keep(self, spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
        """Save what placing `staged` would change, so that `put_back` can.

        `directory` exists and is empty.
        """
        ...

    def place(self, spec: SourceSpec, staged: Path) -> list[str]:
        """Put the copy in the directory `staged` live, at `spec.path`; return notes for people."""
        ...

    def put_back(self, spec: SourceSpec, directory: Path) -> list[str]:
        """Make live what `keep` saved in `directory`; return notes. May be repeated."""
        ...


class DatabaseKind(Kind, Protocol):
    """What databases can do besides."""

    def is_sound(self, spec: SourceSpec) -> bool:
        """Tell whether the live database opens and its schema can be read."""
        ...

    def content_digest(self, name: str, path: Path) -> str:
        """Identify the content of a database file, whatever a copy may change about it."""
        ...

    def value_of(self, directory: Path, query: str, seconds: float) -> int | float | str | None:
        """Return the first value of a query on a staged copy; it may only read."""
        ...


class OpenedKind(DatabaseKind, Protocol):
    """What databases can do besides whose copies are proven by their bytes."""

    def opens(self, directory: Path, evidence: Evidence) -> list[Finding]:
        """See that a copy opens whose very bytes were examined before."""
        ...


class RemoteKind(Kind, Protocol):
    """What kinds can do besides whose live state is not in files."""

    def signature(self, spec: SourceSpec, paths: Sequence[str]) -> dict[str, str]:
        """Identify what is live at each of the paths, "absent" where there is nothing."""
        ...

    def signature_of(self, spec: SourceSpec, directory: Path) -> dict[str, str]:
        """Identify what a staged copy would make live, by path."""
        ...

    def reach(self, spec: SourceSpec) -> str:
        """Say in a clause that everything the source needs is there; changes nothing."""
        ...


class ServerKind(RemoteKind, Protocol):
    """What kinds can do besides whose copies are made on a server, beside what is live there."""

    def prepare(self, spec: SourceSpec, staged: Path, evidence: Evidence | None) -> None:
        """Make of a staged copy what `place` will exchange, and examine it."""
        ...

    def rehearse(
        self, spec: SourceSpec, staged: Path, directory: Path, evidence: Evidence | None
    ) -> Rehearsal:
        """Do what `prepare` does, for a drill: never to go live, and noted in `directory`."""
        ...

    def value_in(
        self, spec: SourceSpec, directory: Path, query: str, seconds: float
    ) -> int | float | str | None:
        """Return the first value of a query on what `rehearse` made; it may only read."""
        ...

    def discard(self, spec: SourceSpec, directory: Path) -> None:
        """Remove from the server what was made or kept and noted in `directory`, but what is live.

        May be repeated.
        """
        ...

    def look(self, spec: SourceSpec) -> tuple[str, int]:
        """Return the signature of what is live, and its bytes, 0 when there is nothing."""
        ...


def kind(name: str) -> Kind:
    """Return the module of the kind `name`.

    Raises:
        SettingsInvalid: there is no such kind.
    """
    if name not in MODULES:
        raise SettingsInvalid(
            f"{name!r} is not a kind of source; there are: {', '.join(sorted(MODULES))}",
            hint="Correct `kind` in the settings. Nothing was read.",
        )
    try:
        return cast(Kind, import_module(MODULES[name]))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _LIBRARIES.get(name):
            raise
        raise SourceUnreadable(
            f"sources of kind {name} need the library {error.name}, which is not installed",
            hint=f'Install it: pip install "mcp-backup[{name}]". Nothing was read.',
        ) from error


def fingerprint(spec: SourceSpec) -> str:
    """Do what the kind's `fingerprint` does, without loading a library that it does not need."""
    if spec.kind in GLANCED:
        return str(import_module(GLANCED[spec.kind]).fingerprint(spec))
    return kind(spec.kind).fingerprint(spec)


def database_kind(name: str) -> DatabaseKind:
    """Return the module of the kind `name` of databases."""
    return cast(DatabaseKind, kind(name))


def opened_kind(name: str) -> OpenedKind:
    """Return the module of the kind `name`, one of `OPENED`."""
    return cast(OpenedKind, kind(name))


def remote_kind(name: str) -> RemoteKind:
    """Return the module of the kind `name` of sources that are not files."""
    return cast(RemoteKind, kind(name))


def server_kind(name: str) -> ServerKind:
    """Return the module of the kind `name` of sources whose copies are made on a server."""
    return cast(ServerKind, kind(name))
