"""What a source is: something live, of a kind, that can be captured, examined and put back.

A capture is one consistent point in time, told as a stream: entries (files, directories, links)
in the order of the walk, the bytes of each file, then the evidence of what was seen. The stream
is produced in a worker process (`worker.py`) and consumed by `backup/` through `capture.py`.

Paths inside a capture are relative, with `/` between the parts, as text with surrogate escapes
for bytes that are not UTF-8 (`os.fsdecode`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct, field


class Component(StrEnum):
    """The three parts a backup is made of, and that a restore can choose between."""

    DATABASES = "databases"
    CONFIG = "config"
    WORKFLOWS = "workflows"


class SourceSpec(Struct, frozen=True):
    """One configured source: what a worker needs to know to capture it or to put it back.

    `kind` is "sqlite", "duckdb", "files", "workflows" or "postgres". `path` is absolute and
    expanded: the database file, the directory of several (duckdb), or the root of a file set; of
    what a server has it is the server's address or command, in which no password is. `options`
    are the kind's own: of databases `exclude_tables: list[str]`; files: `include: list[str]`,
    `exclude: list[str]`; workflows: what `WorkflowSettings.spec` puts there; postgres: what
    `settings_postgres.options` does. `real` is where `path` led when a restore was planned, and
    the only place that the restore may write to; "" outside of restores.
    """

    name: str
    component: Component
    kind: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    real: str = ""


# kinds exchanged piece by piece: each piece is old or new, and what a backup lacks is left alone
PIECEWISE = frozenset({"files", "workflows"})
# kinds that say themselves by which marks their live state is recognised
MARKED = frozenset({"workflows", "duckdb", "postgres"})
SERVED = frozenset({"postgres"})  # databases of a server: copies are made and kept there
REMOTE = frozenset({"workflows", "postgres"})  # their live state is asked for, not looked at

Layout = Literal["image", "stream"]  # cut at fixed offsets, or by content
EntryType = Literal["file", "dir", "symlink"]


class Entry(Struct, frozen=True):
    """One file, directory or link of a capture. `mode` holds the permission bits (0o7777).

    `mtime_ns` is the logical time of last change, stable while the content is. For files,
    `layout` says how to cut them and `page_size` (bytes) what an image's cuts must be a multiple
    of (0 for streams); `lead` (bytes) is what comes before an image's first block, whose borders
    the cuts should fall on. `size` is the size if it is known beforehand, for progress, else 0.
    """

    path: str
    type: EntryType
    mode: int
    mtime_ns: int
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    link_target: str = ""
    layout: Layout = "stream"
    page_size: int = 0
    lead: int = 0
    size: int = 0


class FileEvidence(Struct, frozen=True):
    """What was seen of one file while it was read, before anything was cut or compressed.

    `size` in bytes; `digest` is `segments:<hex>`: BLAKE3 over the BLAKE3 digests of the file's
    64 KiB segments in order (the last one may be shorter; an empty file has none). Segments
    because an SQLite image streams its first page last. `original` is the absolute path it was
    read from.
    """

    path: str
    original: str
    size: int
    digest: str


class Evidence(Struct, frozen=True):
    """What the source saw at the moment of its capture, to compare a restored copy with.

    `engine` is the library's name and version ("SQLite 3.54.1"). `facts` are the kind's own, JSON
    values only; for sqlite: `page_size`, `page_count`, `encoding`, `journal_mode`,
    `user_version`, `application_id`, `schema` (BLAKE3 hex of the sorted schema SQL), `tables`
    (name → row count), `excluded` (names). `notes` are sentences a person should read: what was
    skipped and why. `fingerprint` identifies the live state for change detection; empty when
    nothing sound is known.
    """

    engine: str
    files: tuple[FileEvidence, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: str = ""


class Finding(Struct, frozen=True):
    """One difference between what a copy is and what it should be.

    `code` is stable ("integrity", "foreign-keys", "fts", "row-count", "digest", "schema", ...);
    `subject` is the table or file; `message` says expected and got.
    """

    code: str
    subject: str
    message: str


class Holder(Struct, frozen=True):
    """A process that has a live file open."""

    pid: int
    command: str
    path: str
