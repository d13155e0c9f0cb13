"""Databases of ours on a PostgreSQL server: their names, their comments, and records of them here.

    app_new_<chance>    what a restore made of a dump, until the exchange
    app_drill_<chance>  what a drill made of a dump, until it is examined
    app_undo_<oid>      what was live before a restore, until its undo point is forgotten

A database is known by its server's identifier and its oid, which no renaming changes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from mcp_backup.durable import write_durably
from mcp_backup.errors import RestoreError
from mcp_backup.record import asdict
from mcp_backup.sources.postgres_server import Connection, connected, rows
from mcp_backup.sources.source import SourceSpec

RECORD = ".database.json"  # beside a staged dump, or alone in an undo point or for a drill
OURS = "mcp-backup"  # how the comments begin of databases that may be dropped
UNTOUCHED = "Nothing live was touched."
_VERSION = 1
_LONGEST = 63  # bytes of a name


class Made(Struct, frozen=True):
    """A database of ours, or one that is kept: where it is, and what it was called then."""

    system: str
    name: str
    oid: int
    notes: tuple[str, ...] = ()
    version: int = _VERSION

    @property
    def mark(self) -> str:
        """Its signature."""
        return mark_of(self.system, self.oid)


@contextmanager
def server(spec: SourceSpec) -> Iterator[Connection]:
    """Connect to the source's server beside its database, which need not exist."""
    with connected(spec, spec.options.get("maintenance_dbname", "postgres")) as connection:
        yield connection


def live_name(spec: SourceSpec) -> str:
    """Return the name of the source's live database."""
    return str(spec.options["connection"]["dbname"])


def beside(name: str, suffix: str) -> str:
    """Return a name that says whose it is and fits."""
    room = _LONGEST - len(suffix)
    return name.encode()[:room].decode(errors="ignore") + suffix


def mark_of(server: str, oid: int) -> str:
    """Return the signature of a database."""
    return f"database:{server}:{oid}"


def oid_of(connection: Connection, name: str) -> int | None:
    """Return the oid of the database that has a name now."""
    found = rows(connection, "SELECT oid FROM pg_database WHERE datname = {name}", name=name)
    return int(found[0][0]) if found else None


def name_of(connection: Connection, oid: int) -> str | None:
    """Return the name that a database has now."""
    found = rows(connection, "SELECT datname FROM pg_database WHERE oid = {oid}", oid=oid)
    return str(found[0][0]) if found else None


def comment_of(connection: Connection, oid: int) -> str:
    """Return a database's comment, "" without one."""
    query = "SELECT shobj_description({oid}::oid, 'pg_database')"
    return str(rows(connection, query, oid=oid)[0][0] or "")


def write_record(directory: Path, known: Made) -> None:
    """Write down in `directory`, durably, which database it is about."""
    write_durably(directory / RECORD, json.dumps(asdict(known)).encode())


def read_record(directory: Path) -> Made:
    """Return which database `directory` is about.

    Raises:
        RestoreError: it does not say.
    """
    try:
        document = json.loads((directory / RECORD).read_bytes())
        texts = {"system": str(document["system"]), "notes": tuple(map(str, document["notes"]))}
        known = Made(**{**document, **texts})
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RestoreError(
            f"{directory} does not say which database it is about: {error}",
            hint=f"Restore from a backup instead. {UNTOUCHED}",
        ) from error
    if known.version != _VERSION or not re.fullmatch(r"[0-9]+", known.system):
        raise RestoreError(
            f"{directory} was written by another version of mcp-backup",
            hint=f"Use that version. {UNTOUCHED}",
        )
    return known
