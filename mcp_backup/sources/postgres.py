"""PostgreSQL databases, dumped while others write to them, and put back beside and then in place.

    capture    `pg_dump` of one snapshot, which our own connection holds, streamed: no copy on disk,
               nobody held up, and the evidence is of the very state that is dumped
    examine    the archive is read to its last byte, and the rows of every table counted
    prepare    the archive is restored into a database of its own and compared with the evidence,
               while the live one goes on
    rehearse   for a drill, the same on a server that the settings may name, and then dropped
    exchange   two renames in one transaction (`postgres_swap`); the old database is kept whole

The dump is in the custom format without its compression, so that what did not change is stored
once; ours comes after. One file, of a stable name: the database's.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.postgres_archive import NoArchive, read
from mcp_backup.sources.postgres_beside import discard, prepare, rehearse
from mcp_backup.sources.postgres_checks import value_in
from mcp_backup.sources.postgres_evidence import chosen, facts, held, told
from mcp_backup.sources.postgres_reach import reach
from mcp_backup.sources.postgres_server import connected, conninfo, rows
from mcp_backup.sources.postgres_swap import (
    holders,
    keep,
    look,
    place,
    put_back,
    signature,
    signature_of,
)
from mcp_backup.sources.postgres_tools import fitting, run
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Entry, Evidence, Finding, SourceSpec

__all__ = [
    "capture",
    "discard",
    "examine",
    "fingerprint",
    "holders",
    "keep",
    "look",
    "place",
    "prepare",
    "put_back",
    "reach",
    "rehearse",
    "signature",
    "signature_of",
    "value_in",
]

_LOCK_SECONDS = 60  # for the locks a dump takes; a table being altered holds it up
_MODE = 0o600


def capture(spec: SourceSpec, sink: Sink, scratch: Path) -> Evidence:
    """Dump the database into `sink`; `scratch` takes a password file and complaints, no data.

    Raises:
        SourceMissing, SourceUnreadable: there is none; or it, the server or pg_dump refuses.
        SettingsInvalid: `exclude_tables` names no table.
    """
    with connected(spec) as connection, held(connection) as snapshot:
        major = connection.info.server_version // 10000
        tool = fitting(spec, "pg_dump", major, f"the server is PostgreSQL {major}")
        excluded = chosen(spec, connection, spec.options.get("exclude_tables", ()))
        found = facts(connection, excluded)
        command = [
            tool.path,
            "--format=custom",
            "--compress=0",
            "--no-password",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={_LOCK_SECONDS}s",
            *(f"--exclude-table-data={_pattern(table)}" for table in excluded),
            f"--dbname={conninfo(spec)}",
        ]
        sink.entry(_entry(spec, connection.info.dbname))
        run(spec, command, scratch, sink.write)
        file = sink.end_file(spec.path)
        rows(connection, "SELECT 1")  # the snapshot was held to the end
    engine = f"PostgreSQL {found['database']['version']}, pg_dump {tool.version}"
    return Evidence(engine, (file,), found, (*sink.notes, *_not_in_it(found)), "")


def fingerprint(spec: SourceSpec) -> str:
    """Return "": no number of the server's tells soundly that nothing was written."""
    return ""


def examine(directory: Path, evidence: Evidence | None) -> list[Finding]:
    """Read a staged dump whole, and compare the rows in it with those counted at its capture.

    Raises:
        IntegrityError: the evidence is none.
    """
    files = [path for path in directory.iterdir() if path.is_file() and not path.is_symlink()]
    if len(files) != 1:
        raise SourceUnreadable(f"{directory} holds {len(files)} files, and a dump is one")
    seen = told(evidence)
    try:
        archive = read(files[0])
    except NoArchive as error:
        return [Finding("integrity", files[0].name, f"no whole archive of pg_dump: {error}")]
    if evidence is None:
        return []
    excluded = set(seen.get("excluded", ()))
    findings = [
        Finding("integrity", table, f"expected {count} rows, got {archive.rows.get(table)}")
        for table, count in sorted(seen["tables"].items())
        if table not in excluded and archive.rows.get(table) != count
    ]
    if archive.large_objects != seen["large_objects"]:
        wanted = f"expected {seen['large_objects']}, got {archive.large_objects}"
        findings.append(Finding("integrity", "large objects", wanted))
    return findings


def _pattern(table: Sequence[str]) -> str:
    """Word a table so that pg_dump takes no character of it for a pattern."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in table)


def _entry(spec: SourceSpec, database: str) -> Entry:
    return Entry(
        path=f"{database.replace('/', '_').lstrip('.') or 'database'}.dump",
        type="file",
        mode=_MODE,
        mtime_ns=0,  # a database has no time of its own
        uid=os.geteuid(),
        gid=os.getegid(),
    )


def _not_in_it(found: Mapping[str, Any]) -> list[str]:
    """Say what a dump of one database does not carry."""
    roles = sorted({*found["owners"], *found["grantees"], found["database"]["owner"]})
    return [
        "not in a dump, and to be kept by other means: roles with their passwords "
        f"(this one refers to {', '.join(roles):.200}), tablespaces, the server's own settings, "
        "replication, and statistics, which a restore gathers anew"
    ]
