"""SQLite databases, captured while other processes write to them, and put back under them.

    consistent   a capture is one committed state, whatever is written meanwhile
    streamed     WAL mode: from the file where that is what SQLite would read, else straight from
                 SQLite's backup; with no copy on disk and nobody held up
    brief        rollback modes: writers wait for one copy at full speed, and for nothing else
    harmless     no byte of the live database changes, and no file beside it changes hands
    exact        counts and other evidence are of the very state that was captured

How each of these was measured is in the modules that keep it: `sqlite_reading` (states of a live
file), `sqlite_plain` and `sqlite_pages` (the stream), `sqlite_exclude`, `sqlite_examine`,
`sqlite_placement`.
"""

import grp
import os
import pwd
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw

from mcp_backup.errors import SettingsInvalid
from mcp_backup.sources.holders import holders_of
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Entry, Evidence, FileEvidence, Holder, SourceSpec
from mcp_backup.sources.sqlite_checks import value_of
from mcp_backup.sources.sqlite_evidence import ENGINE, facts
from mcp_backup.sources.sqlite_examine import content_digest, examine, is_sound, opens
from mcp_backup.sources.sqlite_exclude import empty_tables
from mcp_backup.sources.sqlite_file import changed_ns, fingerprint
from mcp_backup.sources.sqlite_pages import copy_to_file, stream
from mcp_backup.sources.sqlite_placement import place
from mcp_backup.sources.sqlite_plain import readable
from mcp_backup.sources.sqlite_reading import Snapshot, begin, connected, snapshot
from mcp_backup.sources.sqlite_undo import keep, put_back

__all__ = [
    "capture",
    "content_digest",
    "examine",
    "fingerprint",
    "holders",
    "is_sound",
    "keep",
    "opens",
    "place",
    "put_back",
    "value_of",
]


def capture(spec: SourceSpec, sink: Sink, scratch: Path) -> Evidence:
    """Read one consistent image of the database into `sink`, first page last.

    `scratch` takes a copy, the size of the database, in rollback modes and where tables are
    excluded.

    Raises:
        SourceMissing, SourceUnreadable, SourceBusy, SourceUnstable: as they say.
        SettingsInvalid: `exclude_tables` names no table.
    """
    known = fingerprint(spec)  # before anything is read: then it is never newer than the image
    with readable() as reader, snapshot(spec.name, spec.path, scratch) as seen:
        sink.notes += seen.notes
        entry = _entry(spec, seen)
        if not seen.blocks_writers and not _excluded(spec):
            sink.entry(entry)
            found = _streamed(sink, reader.plain(seen.connection), seen.connection)
            file = sink.end_file(seen.live.path)
        else:
            copy = scratch / "image"
            copy_to_file(seen.connection, str(copy))
            seen.connection.execute("ROLLBACK")  # from here on nobody waits for us
            try:
                file, found = _from_copy(spec, sink, copy, entry, seen.live.path)
            finally:
                copy.unlink()
    found["journal_mode"] = seen.journal_mode
    return Evidence(ENGINE, (file,), {"excluded": [], **found}, tuple(sink.notes), known)


def holders(spec: SourceSpec) -> list[Holder]:
    """Find the processes that have the database or one of its side files open."""
    real = os.path.realpath(spec.path)
    return holders_of([real, f"{real}-wal", f"{real}-shm", f"{real}-journal"])


def _streamed(sink: Sink, plain: int | None, connection: apsw.Connection) -> dict[str, Any]:
    """Send the image that the transaction on `connection` sees, and return its facts.

    Those are found meanwhile where a plain file is read, which leaves the connection free.
    """
    if plain is None:
        found = facts(connection, sink.notes)
        stream(connection, sink.write_at)
        return found
    with ThreadPoolExecutor(1) as meanwhile:
        asked = meanwhile.submit(facts, connection, sink.notes)
        try:
            sink.write_file(plain)
        except BaseException:
            connection.interrupt()  # nobody wants the facts any more
            raise
        return asked.result()


def _from_copy(
    spec: SourceSpec, sink: Sink, copy: Path, entry: Entry, original: str
) -> tuple[FileEvidence, dict[str, Any]]:
    """Send a private copy, which nobody waits for; its tables are counted in itself."""
    tables = _excluded(spec)
    excluded = empty_tables(spec.name, copy, tables) if tables else []
    connection = connected(copy, query="?immutable=1")
    try:
        begin(connection)
        found = facts(connection, sink.notes)
    finally:
        connection.close()
    sink.entry(entry)
    with open(copy, "rb", buffering=0) as file:
        sink.write_file(file.fileno())
    return sink.end_file(original), {**found, "excluded": excluded}


def _excluded(spec: SourceSpec) -> list[str]:
    tables = spec.options.get("exclude_tables", [])
    if not isinstance(tables, list) or not all(isinstance(table, str) for table in tables):
        raise SettingsInvalid(
            f"source {spec.name!r}: `exclude_tables` is {tables!r}, not a list of names",
            hint="Correct it in the settings. The source was not backed up.",
        )
    return tables


def _entry(spec: SourceSpec, seen: Snapshot) -> Entry:
    status = seen.live.status
    page_size = seen.connection.pragma("page_size")
    return Entry(
        path=Path(spec.path).name,
        type="file",
        mode=stat.S_IMODE(status.st_mode),
        mtime_ns=changed_ns(seen.live),
        uid=status.st_uid,
        gid=status.st_gid,
        user=_named(lambda: pwd.getpwuid(status.st_uid).pw_name),
        group=_named(lambda: grp.getgrgid(status.st_gid).gr_name),
        layout="image",
        page_size=page_size,
        size=page_size * seen.connection.pragma("page_count"),
    )


def _named(look_up: Callable[[], str]) -> str:
    try:
        return look_up()
    except KeyError:
        return ""
