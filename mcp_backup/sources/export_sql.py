"""A portable SQL dump of a database image, written in one pass and proven by reloading it.

    [.dbconfig defensive off]            only where the catalogue itself must be written
    PRAGMA page_size, auto_vacuum, encoding, foreign_keys
    BEGIN
    each table, its rows                 rowids included
    sqlite_sequence, sqlite_stat*        where there are any
    indexes, views, triggers             after the rows: triggers must not see them come
    [virtual tables]                     as entries of the catalogue
    PRAGMA user_version, application_id
    COMMIT

Virtual tables are not filled through their modules: what they store lies in ordinary tables, which
are dumped as such, and the virtual table becomes an entry in the catalogue. So full-text and
spatial indexes come back byte for byte, and modules that nobody has loaded do too. Recent sqlite3
shells want to be told that a script may write the catalogue: hence the first line.

Made for the `sqlite3` shell, on an empty database: `sqlite3 new.db < dump.sql`.
"""

import errno
import re
from pathlib import Path
from typing import BinaryIO

import apsw

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.export_proof import ABOUT, DEFENSIVE_OFF, prove
from mcp_backup.sources.export_reading import (
    Object,
    catalogue,
    is_virtual,
    opened,
    refused,
    rows,
    stored_columns,
)
from mcp_backup.sources.sql_literals import literal, name, text

_BATCH = 32 << 10  # bytes of rows in one INSERT: few statements, each quickly parsed
_LONGEST = 900_000_000  # a statement; SQLite's own limit is 1,000,000,000 bytes
_ENCODINGS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}
_STATISTICS = re.compile(r"sqlite_stat[1-4]")


def export_sql(image: Path, out: Path) -> str:
    """Write the database file `image` as SQL to `out`, reload that, compare, and say so.

    `image` is nobody's live file and is not changed. The scratch database for the proof lies
    beside `out` and is removed. Memory does not grow with the database, only with its largest row.

    Raises:
        NotExportable: SQL text cannot carry something exactly; `out` is removed.
        OSError: `out` cannot be written.
    """
    scratch = out.with_name(f".{out.name}.proof")
    try:
        database = opened(image)
        try:
            with open(out, "wb") as file:
                _Dump(database, file).write()
            return prove(database, out, scratch)
        finally:
            database.close()
    except BaseException as error:
        out.unlink(missing_ok=True)
        if isinstance(error, (apsw.Error, UnicodeDecodeError)):
            raise _worded(image, scratch, error) from error
        raise
    finally:
        scratch.unlink(missing_ok=True)


def _worded(image: Path, scratch: Path, error: apsw.Error | UnicodeDecodeError) -> Exception:
    if isinstance(error, apsw.FullError | apsw.IOError | apsw.CantOpenError):
        number = errno.ENOSPC if isinstance(error, apsw.FullError) else errno.EIO
        return OSError(number, str(error), str(scratch))
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return SourceUnreadable(
            f"{image.name}: {error}",
            hint="The image is damaged, or no database; verify the backup it came from.",
        )
    return refused("the database", str(error))


class _Dump:
    """Writes one dump."""

    def __init__(self, database: apsw.Connection, file: BinaryIO) -> None:
        self._database = database
        self._file = file
        self._encoding = _ENCODINGS[str(database.pragma("encoding"))]
        self._objects = catalogue(database)
        self._tables = [item for item in self._objects if item.type == "table"]

    def write(self) -> None:
        own = [item for item in self._tables if not item.name.startswith("sqlite_")]
        virtual = [item for item in own if is_virtual(item)]
        self._head(writes_catalogue=self._writes_catalogue(virtual))
        for item in own:
            if item not in virtual:
                self._create(item)
                self._rows(item.name)
        self._internal_tables()
        for kind in ("index", "view", "trigger"):
            for item in self._objects:
                if item.type == kind and item.sql is not None:
                    self._create(item)
        self._catalogue_entries(virtual)
        for pragma in ("user_version", "application_id"):
            self._line(f"PRAGMA {pragma}={self._database.pragma(pragma)};")
        self._line("COMMIT;")
        if self._writes_catalogue(virtual):
            self._line("PRAGMA writable_schema=RESET;")

    def _writes_catalogue(self, virtual: list[Object]) -> bool:
        return bool(virtual) or any(
            _STATISTICS.fullmatch(item.name) or _has_carriage_return(item) for item in self._objects
        )

    def _head(self, *, writes_catalogue: bool) -> None:
        if writes_catalogue:
            self._line(DEFENSIVE_OFF)
        for pragma in ("page_size", "auto_vacuum"):
            self._line(f"PRAGMA {pragma}={self._database.pragma(pragma)};")
        self._line(f"PRAGMA encoding='{self._database.pragma('encoding')}';")
        self._line("PRAGMA foreign_keys=OFF;")
        if writes_catalogue:
            self._line("PRAGMA writable_schema=ON;")
        self._line("BEGIN;")

    def _create(self, item: Object) -> None:
        """Write the statement that makes `item`; the shell would drop its carriage returns."""
        assert item.sql is not None
        self._about(item.type, item.name)
        if "\0" in item.sql:
            raise refused(f"{item.type} {item.name!r}", "a NUL in its definition")
        self._line(item.sql.replace("\r\n", "\n").replace("\r", "\n") + ";")

    def _internal_tables(self) -> None:
        """Write SQLite's own tables; it makes sqlite_sequence for the first table that counts."""
        for item in self._tables:
            if item.name == "sqlite_sequence":
                self._about("table", item.name)
                unused = self._unused_name()
                self._line(f"CREATE TABLE {unused}(id INTEGER PRIMARY KEY AUTOINCREMENT);")
                self._line(f"DROP TABLE {unused};")
                self._line("DELETE FROM sqlite_sequence;")
                self._rows(item.name)
            elif _STATISTICS.fullmatch(item.name):
                self._create(item)
                self._rows(item.name)

    def _unused_name(self) -> str:
        taken = {item.name.lower() for item in self._objects}
        candidate = "mcp_backup_sequence"
        while candidate in taken:
            candidate += "_"
        return candidate

    def _catalogue_entries(self, virtual: list[Object]) -> None:
        """Write what no statement makes exactly: entries, and carriage returns in definitions."""
        for item in virtual:
            self._about("virtual table", item.name)
            self._line(
                "INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql) VALUES"
                f"('table',{self._text(item.name)},{self._text(item.table)},0,"
                f"{self._text(item.sql or '')});"
            )
        for item in self._objects:
            if _has_carriage_return(item) and item not in virtual:
                self._about(item.type, item.name)
                self._line(
                    f"UPDATE sqlite_master SET sql={self._text(item.sql or '')} "
                    f"WHERE type='{item.type}' AND name={self._text(item.name)};"
                )

    def _rows(self, table: str) -> None:
        """Write a table's rows in the order of their keys, many to a statement."""
        columns = stored_columns(self._database, table)
        into = ",".join(name(column) for column in columns)
        head = f"INSERT INTO {name(table)}({into}) VALUES ".encode()
        batch: list[bytes] = []
        size = 0
        for row in rows(self._database, table, columns):
            told = b"(" + b",".join(literal(value, self._encoding) for value in row) + b")"
            if len(told) > _LONGEST:
                raise refused(f"table {table!r}", f"a row of {len(told)} bytes as SQL")
            batch.append(told)
            size += len(told)
            if size >= _BATCH:
                self._file.write(head + b",".join(batch) + b";\n")
                batch, size = [], 0
        if batch:
            self._file.write(head + b",".join(batch) + b";\n")

    def _text(self, value: str) -> str:
        return text(value.encode(self._encoding), self._encoding).decode()

    def _about(self, kind: str, subject: str) -> None:
        self._line(f"{ABOUT}{kind} {subject!a}")

    def _line(self, statement: str) -> None:
        self._file.write(statement.encode() + b"\n")


def _has_carriage_return(item: Object) -> bool:
    return "\r" in (item.sql or "")
