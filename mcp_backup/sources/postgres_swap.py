"""PostgreSQL databases put live: one beside the other, exchanged by name, the old one kept whole.

    app               the live database
    app_new_<chance>  what a restore made of a dump, until the exchange
    app_undo_<oid>    what was live before, until its undo point is forgotten

A database is known by its server's identifier and its oid, which no renaming changes: that is its
signature, so whatever kills us, whoever comes next sees which of the two is live.

    atomic   both renames and all that goes with them are one transaction
    polite   connections are ended only there, while the name is locked and nobody can come back
    ours     a database is dropped only if its oid, its name and its comment all say that it is one
             of ours, which nobody uses

Nothing is copied: rows written until the moment of the exchange are in what is kept.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex

import psycopg

from mcp_backup.durable import write_durably
from mcp_backup.errors import (
    BackupError,
    RestoreError,
    StagingRejected,
    TargetBusy,
)
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.postgres_evidence import differing, facts, held
from mcp_backup.sources.postgres_making import load, made, settle
from mcp_backup.sources.postgres_server import (
    Connection,
    connected,
    do,
    refusal,
    rows,
    system,
)
from mcp_backup.sources.source import Evidence, Holder, SourceSpec

ABSENT = "absent"
RECORD = ".database.json"  # beside a staged dump, or alone in an undo point
_VERSION = 1
_OURS = "mcp-backup"  # how the comments begin of databases that may be dropped
_NEW = f"{_OURS}: being restored; not live"
_KEPT = f"{_OURS}: kept to undo a restore; `mcp-backup undo` puts it back"
_LONGEST = 63  # bytes of a name
_AGAIN_SECONDS = 0.05
_UNTOUCHED = "Nothing live was touched."


@dataclass(frozen=True, slots=True)
class Made:
    """A database of ours, or one that is kept: where it is, and what it was called then."""

    system: str
    name: str
    oid: int
    notes: tuple[str, ...] = ()
    version: int = _VERSION

    @property
    def mark(self) -> str:
        """Its signature."""
        return _mark(self.system, self.oid)


def signature(spec: SourceSpec, paths: Sequence[str]) -> dict[str, str]:
    """Identify the database that has the source's name now."""
    with _server(spec) as connection:
        oid = _oid(connection, _name(spec))
        return {"": ABSENT if oid is None else _mark(system(connection), oid)}


def signature_of(spec: SourceSpec, directory: Path) -> dict[str, str]:
    """Identify the database that was made of the dump in `directory`."""
    return {"": _read(directory).mark}


def look(spec: SourceSpec) -> tuple[str, int]:
    """Return the signature of the live database, and its bytes on its server."""
    with _server(spec) as connection:
        oid = _oid(connection, _name(spec))
        if oid is None:
            return ABSENT, 0
        size = rows(connection, "SELECT pg_database_size({oid}::oid)", oid=oid)[0][0]
        return _mark(system(connection), oid), int(size)


def holders(spec: SourceSpec) -> list[Holder]:
    """Return the connections to the live database, but our own; the pids are the server's."""
    query = (
        "SELECT pid, coalesce(nullif(application_name, ''), backend_type, 'a program'), "
        "usename, coalesce(host(client_addr), 'a local socket') FROM pg_stat_activity "
        "WHERE datname = {name} AND coalesce(backend_type, 'client backend') = 'client backend' "
        "AND application_name <> 'mcp-backup' ORDER BY pid"
    )
    with _server(spec) as connection:
        found = rows(connection, query, name=_name(spec))
    return [
        Holder(int(pid), f"{what} as {who} from {where}", spec.path)
        for pid, what, who, where in found
    ]


def prepare(spec: SourceSpec, staged: Path, evidence: Evidence | None) -> None:
    """Make a database of the dump in `staged`, beside the live one, and compare it with it.

    Its name is written down before it is made, so `discard` finds it whatever happens.

    Raises:
        StagingRejected: it is not what was captured; it stays until `discard`.
        SourceError: the server or pg_restore refuses.
    """
    dump = next(path for path in sorted(staged.iterdir()) if path.suffix == ".dump")
    seen = dict(evidence.facts) if evidence else {}
    name = _beside(_name(spec), f"_new_{token_hex(4)}")
    with _server(spec) as connection:
        here = Made(system(connection), name, 0)
        _write(staged, here)
        notes = made(connection, spec, name, _name(spec), seen)
        comment = seen.get("database", {}).get("comment", "")
        do(connection, "COMMENT ON DATABASE {} IS {text}", name, text=f"{_NEW}\n{comment}")
        oid = _oid(connection, name)
        assert oid is not None
        _write(staged, Made(here.system, name, oid))
        notes += settle(connection, name, seen.get("database", {}))
    notes += load(spec, dump, name, seen, staged)
    with connected(spec, name) as connection:
        do(connection, "ANALYZE")
        with held(connection):
            found = differing(seen, facts(connection)) if seen else []
    if found:
        told = "; ".join(f"{item.code} {item.subject}: {item.message}" for item in found[:5])
        raise StagingRejected(
            f"source {spec.name!r}: the database restored beside the live one is not what was "
            f"captured: {told}",
            hint=f"Use another backup. {_UNTOUCHED}",
        )
    _write(staged, Made(here.system, name, oid, tuple(notes)))


def keep(spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
    """Write down which database is live. It stays where it is, and is kept whole."""
    with _server(spec) as connection:
        oid = _oid(connection, _name(spec))
        _write(directory, Made(system(connection), _name(spec), oid or 0))
    return KeptCopy("absent" if oid is None else "present", 0)


def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Give the database made of the dump the live name, and the live one its undo name.

    Raises:
        TargetBusy: connections to the live database do not end; nothing was changed.
        RestoreError: the server refuses; nothing was changed.
    """
    return [*_read(staged).notes, *_exchange(spec, _read(staged))]


def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Give the live name back to the database that had it when `keep` was asked. Repeatable.

    Raises:
        TargetBusy, RestoreError: as for `place`; or the kept database is gone.
    """
    return _exchange(spec, _read(directory))


def discard(spec: SourceSpec, directory: Path) -> None:
    """Drop the database that is written down in `directory`, if it is ours and not live.

    Where nothing is written down there is nothing to drop.
    """
    if not (directory / RECORD).exists():
        return
    known = _read(directory)
    with _server(spec) as connection:
        if system(connection) != known.system:
            return  # the settings now mean another server
        oid = known.oid or _oid(connection, known.name)
        name = _name_of(connection, oid) if oid else None
        if oid is None or name is None:
            return
        base = _name(spec)
        names = (_beside(base, f"_undo_{oid}"), known.name if known.name != base else "")
        comment = _comment(connection, oid)
        unfinished = known.oid == 0 and not comment  # killed before it could be marked
        if name not in names or not (comment.startswith(_OURS) or unfinished):
            return
        do(connection, "DROP DATABASE {} WITH (FORCE)", name)


def _exchange(spec: SourceSpec, wanted: Made) -> list[str]:
    """Make the database `wanted` live; oid 0 means that none is to be."""
    live = _name(spec)
    with _server(spec) as connection:
        if system(connection) != wanted.system:
            raise RestoreError(
                f"source {spec.name!r}: {spec.path} is another server than it was",
                hint=f"Correct the source in the settings. {_UNTOUCHED}",
            )
        now = _oid(connection, live)
        if now == (wanted.oid or None):
            return []
        name = _name_of(connection, wanted.oid) if wanted.oid else None
        if wanted.oid and name is None:
            kept = _beside(live, f"_undo_{wanted.oid}")
            raise RestoreError(
                f"source {spec.name!r}: the database that was kept as {kept} is gone",
                hint=f"Restore from a backup instead. {_UNTOUCHED}",
            )
        oids = [oid for oid in (now, wanted.oid) if oid]
        with _ending(spec, oids) as ended, _refused(spec), connection.transaction():
            if now is not None:
                _step_aside(connection, live, now)
            if name is not None:
                _step_in(connection, name, wanted.oid, live)
    return [f"{len(ended)} connections to {live} were ended"] if ended else []


def _step_aside(connection: Connection, name: str, oid: int) -> None:
    aside = _beside(name, f"_undo_{oid}")
    comment = _comment(connection, oid)
    do(connection, "ALTER DATABASE {} RENAME TO {}", name, aside)
    do(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS false", aside)
    do(connection, "COMMENT ON DATABASE {} IS {text}", aside, text=f"{_KEPT}\n{comment}")


def _step_in(connection: Connection, name: str, oid: int, live: str) -> None:
    """Bring a database in, with the comment it had: a kept one's stands below our own line."""
    ours, _, comment = _comment(connection, oid).partition("\n")
    do(connection, "ALTER DATABASE {} RENAME TO {}", name, live)
    do(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS true", live)
    if ours.startswith(_OURS):
        do(connection, "COMMENT ON DATABASE {} IS {text}", live, text=comment)


@contextmanager
def _ending(spec: SourceSpec, oids: Sequence[int]) -> Iterator[set[int]]:
    """End connections to these databases for as long as the block lasts; give their pids.

    A renaming locks the name first and then waits five seconds for those who are in: from there
    on nobody comes in, and whoever is in has to be shown out. That is another connection's work.
    """
    done = threading.Event()
    trouble: list[BackupError] = []
    ended: set[int] = set()
    query = (
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datid IN ({', '.join(map(str, oids))}) "
        "AND coalesce(backend_type, 'client backend') = 'client backend'"  # NULL: of a higher role
    )

    def end() -> None:
        try:
            with _server(spec) as other:
                while not done.wait(_AGAIN_SECONDS):
                    ended.update(int(pid) for pid, _ in rows(other, query))
        except BackupError as error:  # not permitted: the renaming will meet who is in
            trouble.append(error)

    ending = threading.Thread(target=end)
    ending.start()
    try:
        yield ended
    except TargetBusy as error:
        done.set()
        ending.join()
        raise TargetBusy("; ".join(map(str, [error, *trouble])), hint=error.hint) from error
    finally:
        done.set()
        ending.join()


@contextmanager
def _refused(spec: SourceSpec) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.ObjectInUse as error:
        who = ", ".join(sorted({item.command for item in holders(spec)})) or "somebody"
        raise TargetBusy(
            f"source {spec.name!r}: {spec.path} is in use by {who}, and that did not end",
            hint="Stop that program, or GRANT pg_signal_backend to the source's role; prepared "
            f"transactions have to be ended as well. {_UNTOUCHED}",
        ) from error
    except psycopg.Error as error:
        told = refusal(spec, error)
        raise RestoreError(str(told), hint=f"{told.hint} {_UNTOUCHED}") from error


@contextmanager
def _server(spec: SourceSpec) -> Iterator[Connection]:
    """Connect to the source's server beside its database, which need not exist."""
    with connected(spec, spec.options.get("maintenance_dbname", "postgres")) as connection:
        yield connection


def _name(spec: SourceSpec) -> str:
    return str(spec.options["connection"]["dbname"])


def _beside(name: str, suffix: str) -> str:
    """Return a name that says whose it is and fits."""
    room = _LONGEST - len(suffix)
    return name.encode()[:room].decode(errors="ignore") + suffix


def _mark(server: str, oid: int) -> str:
    return f"database:{server}:{oid}"


def _oid(connection: Connection, name: str) -> int | None:
    found = rows(connection, "SELECT oid FROM pg_database WHERE datname = {name}", name=name)
    return int(found[0][0]) if found else None


def _name_of(connection: Connection, oid: int) -> str | None:
    found = rows(connection, "SELECT datname FROM pg_database WHERE oid = {oid}", oid=oid)
    return str(found[0][0]) if found else None


def _comment(connection: Connection, oid: int) -> str:
    query = "SELECT shobj_description({oid}::oid, 'pg_database')"
    return str(rows(connection, query, oid=oid)[0][0] or "")


def _write(directory: Path, known: Made) -> None:
    write_durably(directory / RECORD, json.dumps(asdict(known)).encode())


def _read(directory: Path) -> Made:
    try:
        document = json.loads((directory / RECORD).read_bytes())
        known = Made(**{**document, "notes": tuple(document["notes"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RestoreError(
            f"{directory} does not say which database it is about: {error}",
            hint=f"Restore from a backup instead. {_UNTOUCHED}",
        ) from error
    if known.version != _VERSION or not re.fullmatch(r"[0-9]+", known.system):
        raise RestoreError(
            f"{directory} was written by another version of mcp-backup",
            hint=f"Use that version. {_UNTOUCHED}",
        )
    return known
