"""PostgreSQL databases put live: one beside the other, exchanged by name, the old one kept whole.

What is made of a dump beside the live one (`postgres_beside`) gets its name, and what was live is
kept under another. A database's signature is one that no renaming changes (`postgres_ours`), so
whatever kills us, whoever comes next sees which of the two is live.

    atomic   both renames and all that goes with them are one transaction
    polite   connections are ended only there, while the name is locked and nobody can come back

Nothing is copied: rows written until the moment of the exchange are in what is kept.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from mcp_backup.errors import BackupError, RestoreError, TargetBusy
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.postgres_ours import (
    OURS,
    UNTOUCHED,
    Made,
    beside,
    comment_of,
    live_name,
    mark_of,
    name_of,
    oid_of,
    read_record,
    server,
    write_record,
)
from mcp_backup.sources.postgres_server import Connection, do, refusal, rows, system
from mcp_backup.sources.source import Holder, SourceSpec

ABSENT = "absent"
_KEPT = f"{OURS}: kept to undo a restore; `mcp-backup undo` puts it back"
_AGAIN_SECONDS = 0.05


def signature(spec: SourceSpec, paths: Sequence[str]) -> dict[str, str]:
    """Identify the database that has the source's name now."""
    with server(spec) as connection:
        oid = oid_of(connection, live_name(spec))
        return {"": ABSENT if oid is None else mark_of(system(connection), oid)}


def signature_of(spec: SourceSpec, directory: Path) -> dict[str, str]:
    """Identify the database that was made of the dump in `directory`."""
    return {"": read_record(directory).mark}


def look(spec: SourceSpec) -> tuple[str, int]:
    """Return the signature of the live database, and its bytes on its server."""
    with server(spec) as connection:
        oid = oid_of(connection, live_name(spec))
        if oid is None:
            return ABSENT, 0
        size = rows(connection, "SELECT pg_database_size({oid}::oid)", oid=oid)[0][0]
        return mark_of(system(connection), oid), int(size)


def holders(spec: SourceSpec) -> list[Holder]:
    """Return the connections to the live database, but our own; the pids are the server's."""
    query = (
        "SELECT pid, coalesce(nullif(application_name, ''), backend_type, 'a program'), "
        "usename, coalesce(host(client_addr), 'a local socket') FROM pg_stat_activity "
        "WHERE datname = {name} AND coalesce(backend_type, 'client backend') = 'client backend' "
        "AND application_name <> 'mcp-backup' ORDER BY pid"
    )
    with server(spec) as connection:
        found = rows(connection, query, name=live_name(spec))
    return [
        Holder(int(pid), f"{what} as {who} from {where}", spec.path)
        for pid, what, who, where in found
    ]


def keep(spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
    """Write down which database is live. It stays where it is, and is kept whole."""
    with server(spec) as connection:
        oid = oid_of(connection, live_name(spec))
        write_record(directory, Made(system(connection), live_name(spec), oid or 0))
    return KeptCopy("absent" if oid is None else "present", 0)


def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Give the database made of the dump the live name, and the live one its undo name.

    Raises:
        TargetBusy: connections to the live database do not end; nothing was changed.
        RestoreError: the server refuses; nothing was changed.
    """
    return [*read_record(staged).notes, *_exchange(spec, read_record(staged))]


def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Give the live name back to the database that had it when `keep` was asked. Repeatable.

    Raises:
        TargetBusy, RestoreError: as for `place`; or the kept database is gone.
    """
    return _exchange(spec, read_record(directory))


def _exchange(spec: SourceSpec, wanted: Made) -> list[str]:
    """Make the database `wanted` live; oid 0 means that none is to be."""
    live = live_name(spec)
    with server(spec) as connection:
        if system(connection) != wanted.system:
            raise RestoreError(
                f"source {spec.name!r}: {spec.path} is another server than it was",
                hint=f"Correct the source in the settings. {UNTOUCHED}",
            )
        now = oid_of(connection, live)
        if now == (wanted.oid or None):
            return []
        name = name_of(connection, wanted.oid) if wanted.oid else None
        if wanted.oid and name is None:
            kept = beside(live, f"_undo_{wanted.oid}")
            raise RestoreError(
                f"source {spec.name!r}: the database that was kept as {kept} is gone",
                hint=f"Restore from a backup instead. {UNTOUCHED}",
            )
        oids = [oid for oid in (now, wanted.oid) if oid]
        with _ending(spec, oids) as ended, _refused(spec), connection.transaction():
            if now is not None:
                _step_aside(connection, live, now)
            if name is not None:
                _step_in(connection, name, wanted.oid, live)
    return [f"{len(ended)} connections to {live} were ended"] if ended else []


def _step_aside(connection: Connection, name: str, oid: int) -> None:
    aside = beside(name, f"_undo_{oid}")
    comment = comment_of(connection, oid)
    do(connection, "ALTER DATABASE {} RENAME TO {}", name, aside)
    do(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS false", aside)
    do(connection, "COMMENT ON DATABASE {} IS {text}", aside, text=f"{_KEPT}\n{comment}")


def _step_in(connection: Connection, name: str, oid: int, live: str) -> None:
    """Bring a database in, with the comment it had: a kept one's stands below our own line."""
    ours, _, comment = comment_of(connection, oid).partition("\n")
    do(connection, "ALTER DATABASE {} RENAME TO {}", name, live)
    do(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS true", live)
    if ours.startswith(OURS):
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
            with server(spec) as other:
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
            f"transactions have to be ended as well. {UNTOUCHED}",
        ) from error
    except psycopg.Error as error:
        told = refusal(spec, error)
        raise RestoreError(str(told), hint=f"{told.hint} {UNTOUCHED}") from error
