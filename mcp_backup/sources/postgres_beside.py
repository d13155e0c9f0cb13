"""A PostgreSQL database made of a dump beside the live one, examined there, and cleared away.

prepare    for a restore: what `postgres_swap` will exchange
rehearse   for a drill: the same, but that it never goes live and nobody else is let in
discard    drops what either made, or what an undo point kept

written    its name is written down before it is made, so whatever kills us, `discard` finds it
ours       a database is dropped only if its oid, its name and its comment all say that it is
           one of ours, which nobody uses
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from time import monotonic, sleep
from typing import Any

from msgspec.structs import replace

from mcp_backup.errors import BackupError, IntegrityError, SourceBusy, StagingRejected
from mcp_backup.sources.kinds import Rehearsal
from mcp_backup.sources.postgres_evidence import differing, facts, held, told
from mcp_backup.sources.postgres_making import fitting_restorer, load, made, settle
from mcp_backup.sources.postgres_ours import (
    OURS,
    RECORD,
    UNTOUCHED,
    Made,
    beside,
    comment_of,
    live_name,
    name_of,
    oid_of,
    read_record,
    server,
    write_record,
)
from mcp_backup.sources.postgres_server import Connection, connected, do, rows, system
from mcp_backup.sources.source import Evidence, Finding, SourceSpec

_NEW = f"{OURS}: being restored; not live"
_DRILLED = f"{OURS}: a drill's copy; not live, and dropped when the drill ends"
_ELSEWHERE = "Or name a server for drills as `drill_dsn` of the source."
_PATIENCE_SECONDS = 30.0  # for a server to let go of a database that is being made
_AGAIN_SECONDS = 0.05

Facts = Mapping[str, Any]


def prepare(spec: SourceSpec, staged: Path, evidence: Evidence | None) -> None:
    """Make a database of the dump in `staged`, beside the live one, and compare it with it.

    Raises:
        StagingRejected: it is not what was captured; it stays until `discard`.
        SourceError: the server or pg_restore refuses.
    """
    seen = told(evidence)
    with server(spec) as connection:
        here = _made(connection, spec, staged, seen, (f"_new_{token_hex(4)}", _NEW))
    notes, found = _filled(spec, here.name, staged, seen)
    if found:
        listed = "; ".join(f"{item.code} {item.subject}: {item.message}" for item in found[:5])
        raise StagingRejected(
            f"source {spec.name!r}: the database restored beside the live one is not what was "
            f"captured: {listed}",
            hint=f"Use another backup. {UNTOUCHED}",
        )
    write_record(staged, replace(here, notes=(*here.notes, *notes)))


def rehearse(
    spec: SourceSpec, staged: Path, directory: Path, evidence: Evidence | None
) -> Rehearsal:
    """Make a database of the dump in `staged`, as `prepare` does, that is never to go live.

    It is written down in `directory`, which is held meanwhile, and stays until `discard`. Nobody
    is let in but its owner and whoever may go anywhere.

    Raises:
        IntegrityError: what is staged is no archive.
    """
    seen = told(evidence)
    with _holding(directory):
        try:
            with server(spec) as connection:
                fitting_restorer(spec, _dump(staged))
                if why := _not_allowed(spec, connection):
                    return Rehearsal(unable=why)
                suffix = f"_drill_{token_hex(8)}"
                here = _made(connection, spec, directory, _closed(seen), (suffix, _DRILLED))
        except IntegrityError:
            raise
        except BackupError as error:
            return Rehearsal(unable=f"{error}. {error.hint} {_ELSEWHERE}")
        try:
            notes, found = _filled(spec, here.name, staged, seen)
        except BackupError as error:
            if why := _not_its_fault(spec, error):
                return Rehearsal(unable=why)
            return Rehearsal((Finding(error.code, _dump(staged).name, str(error)),))
        return Rehearsal(tuple(found), (*here.notes, *notes))


def discard(spec: SourceSpec, directory: Path) -> None:
    """Drop the database that is written down in `directory`, if it is ours and not live.

    Where nothing is written down there is nothing to drop.

    Raises:
        SourceError: the server refuses, or cannot be asked.
    """
    if not (directory / RECORD).exists():
        return
    known = read_record(directory)
    with server(spec) as connection:
        if system(connection) != known.system:
            return  # the settings now mean another server
        if not known.oid:
            _end_making(spec, connection, known.name)
        oid = known.oid or oid_of(connection, known.name)
        name = name_of(connection, oid) if oid else None
        if oid is None or name is None:
            return
        base = live_name(spec)
        names = (beside(base, f"_undo_{oid}"), known.name if known.name != base else "")
        comment = comment_of(connection, oid)
        unfinished = known.oid == 0 and not comment  # killed before it could be marked
        if name not in names or not (comment.startswith(OURS) or unfinished):
            return
        do(connection, "DROP DATABASE {} WITH (FORCE)", name)


def _made(
    connection: Connection, spec: SourceSpec, directory: Path, seen: Facts, said: tuple[str, str]
) -> Made:
    """Make an empty database, whose suffix and first line of comment are `said`."""
    suffix, line = said
    live, about = live_name(spec), seen.get("database", {})
    here = Made(system(connection), beside(live, suffix), 0)
    write_record(directory, here)
    notes = made(connection, spec, here.name, live, seen)
    text = f"{line}\n{about.get('comment', '')}"
    do(connection, "COMMENT ON DATABASE {} IS {text}", here.name, text=text)
    oid = oid_of(connection, here.name)
    assert oid is not None
    here = replace(here, oid=oid)
    write_record(directory, here)
    notes += settle(connection, here.name, about)
    return replace(here, notes=tuple(notes))


def _filled(
    spec: SourceSpec, name: str, staged: Path, seen: Facts
) -> tuple[list[str], list[Finding]]:
    """Restore the dump into the database, and return notes and how it differs from `seen`."""
    notes = load(spec, _dump(staged), name, seen, staged)
    with connected(spec, name) as connection:
        do(connection, "ANALYZE")
        with held(connection):
            return notes, differing(seen, facts(connection)) if seen else []


def _dump(staged: Path) -> Path:
    return next(path for path in sorted(staged.iterdir()) if path.suffix == ".dump")


def _closed(seen: Facts) -> Facts:
    """Return the facts of a database that others may not connect to, and that we may."""
    shut = {"grants": (), "granted": True, "connection_limit": -1}
    return {**seen, "database": {**seen.get("database", {}), **shut}} if seen else {}


def _not_allowed(spec: SourceSpec, connection: Connection) -> str:
    """Say why no database can be made here, and what to do; "" where nothing is known."""
    query = (
        "SELECT rolname, rolcreatedb OR rolsuper, pg_is_in_recovery() "
        "FROM pg_roles WHERE rolname = current_user"
    )
    ((role, may_create, standby),) = rows(connection, query)
    if standby:
        return f"{spec.path} is a standby, which takes no new databases. {_ELSEWHERE}"
    if not may_create:
        return (
            f"role {role!r} may not create databases at {spec.path}. "
            f'ALTER ROLE "{role}" CREATEDB. {_ELSEWHERE}'
        )
    return ""


def _not_its_fault(spec: SourceSpec, error: BackupError) -> str:
    """Say why an error tells nothing of the dump, and what to do; "" when it does."""
    if "No space left on device" in str(error):
        return f"{error}. Free some space on the server. {_ELSEWHERE}"
    try:
        with server(spec):
            return ""
    except BackupError as gone:
        return f"{gone}. {gone.hint}"


@contextmanager
def _holding(directory: Path) -> Iterator[None]:
    """Keep others from taking what is written down in `directory` for left over."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _end_making(spec: SourceSpec, connection: Connection, name: str) -> None:
    """End the server's making of a database for somebody who was killed meanwhile.

    Raises:
        SourceBusy: it does not end.
    """
    quoted = name.replace('"', '""')
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND state = 'active' AND starts_with(query, {text})"
    )
    end = monotonic() + _PATIENCE_SECONDS
    while rows(connection, query, text=f'CREATE DATABASE "{quoted}"'):
        if monotonic() > end:
            raise SourceBusy(f"source {spec.name!r}: {name} is being made, and that does not end")
        sleep(_AGAIN_SECONDS)
