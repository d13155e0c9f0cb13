"""The program that has DuckDB in it: one operation on one file, then the end.

    python -m mcp_backup.sources.duckdb_library OPERATION PATH [TABLE ...]

It prints one JSON object: what was asked for, or {"fault": words, "why": one of FAULTS}. A program
of its own, below the worker, because opening a bad copy may abort the process: then no answer is
the answer, and whoever asked can go on (`duckdb_asking`).

No database is trusted: nothing outside the file is read or written, no extension is loaded or
fetched.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
from blake3 import blake3

FAULTS = ("locked", "too-new", "full", "no-table", "damaged")
ENGINE = f"DuckDB {duckdb.__version__}"
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
}
_TOO_NEW = re.compile(r"version number \d+, but we can only read|newer version of DuckDB")
_LOCKED = "Could not set lock on file"
_FULL = re.compile(r"No space left|disk is full|Disk quota", re.IGNORECASE)
_EXTENSIONS = {"HNSW": "vss", "RTREE": "spatial"}  # by what an index is made with
_OF_TYPES = {"GEOMETRY": "spatial", "INET": "inet"}
_USING = re.compile(r"\bUSING\s+([A-Z_0-9]+)", re.IGNORECASE)
_FULL_TEXT = re.compile(r"fts_.+_.+")  # the schema that the fts extension makes for a table
_SECOND = "emptied"  # the name of the database that tables are copied into

Answer = dict[str, Any]


class Table(NamedTuple):
    """A table: its name in SQL, and its columns: name, type, and whether it is computed."""

    sql: str
    columns: list[tuple[str, str, bool]]


class NoTable(Exception):
    """A table that is to be left out is not there."""


def look(path: str, _arguments: Sequence[str]) -> Answer:
    """Read every value in the file; return what it says about itself.

    `tables` are rows by table, `columns` names and types, `content` one digest of all values.
    """
    connection = _opened(path, read_only=True)
    try:
        return _facts(connection)
    finally:
        connection.close()


def peek(path: str, _arguments: Sequence[str]) -> Answer:
    """Open the file and read its catalog, no more."""
    connection = _opened(path, read_only=True)
    try:
        extensions = sorted(set(_extensions(connection, _tables(connection).values())))
        return {"engine": ENGINE, "extensions": extensions}
    finally:
        connection.close()


def fold(path: str, _arguments: Sequence[str]) -> Answer:
    """Bring what is in the write-ahead log into the file, which is then all there is."""
    connection = _opened(path, read_only=False)
    try:
        connection.execute("CHECKPOINT").fetchall()
    finally:
        connection.close()
    return {}


def empty(path: str, tables: Sequence[str]) -> Answer:
    """Make `<path>.emptied` a copy without the rows of `tables`; return their names and its facts.

    A new file, since DuckDB leaves deleted rows in blocks that it does not use any more. Only
    an exact copy is one: every other table must hold what it held.
    """
    target = f"{path}.emptied"
    connection = _opened(path, read_only=False, beside=True)
    try:
        connection.execute("SET threads = 1")  # the same rows make the same blocks again
        connection.execute("SET preserve_insertion_order = true")
        there = _tables(connection)
        names = [_found(there, table) for table in tables]
        for name in names:
            connection.execute(f"DELETE FROM {there[name].sql}").fetchall()
        before = _facts(connection)
        (own,) = _asked(connection, "SELECT current_database()")
        version = before["storage_version"].rstrip("+")
        connection.execute(
            f"ATTACH '{_literal(target)}' AS {_SECOND} (STORAGE_VERSION '{version}')"
        )
        connection.execute(f"COPY FROM DATABASE {_quoted(own[0])} TO {_SECOND}").fetchall()
        connection.execute(f"DETACH {_SECOND}")
    finally:
        connection.close()
    after = look(target, ())
    differing = [key for key in ("tables", "schema", "content") if before[key] != after[key]]
    if differing:
        raise duckdb.Error(f"the copy without these tables differs in {', '.join(differing)}")
    return {"excluded": names, "facts": after}


def value(path: str, arguments: Sequence[str]) -> Answer:
    """Return the first value that a query gives; null where it is neither number nor text."""
    connection = _opened(path, read_only=True)
    try:
        connection.execute("SET lock_configuration = true")
        row = connection.execute(arguments[0]).fetchone()
    finally:
        connection.close()
    if not row:
        raise duckdb.Error("it gives no row")
    return {"value": row[0] if isinstance(row[0], int | float | str) else None}


def _opened(path: str, *, read_only: bool, beside: bool = False) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(path, read_only=read_only, config=_CONFIG)
    if beside:
        connection.execute("SET allowed_directories = ?", [[os.path.dirname(path)]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _facts(connection: duckdb.DuckDBPyConnection) -> Answer:
    tables, counts, sums = _tables(connection), {}, []
    for name, table in tables.items():
        counts[name], content = _read_through(connection, table)
        sums.append([name, counts[name], content])
    sequences = [
        list(row)
        for row in _asked(
            connection,
            "SELECT schema_name, sequence_name, last_value FROM duckdb_sequences()"
            " WHERE database_name = current_database() ORDER BY ALL",
        )
    ]
    schema = sorted(_schema(connection))
    return {
        "engine": ENGINE,
        "storage_version": _storage_version(connection),
        "tables": counts,
        "columns": {
            name: [[column, kind] for column, kind, _computed in table.columns]
            for name, table in tables.items()
        },
        "schema": blake3("\0".join(schema).encode()).hexdigest(),
        "content": blake3(json.dumps([schema, sums, sequences]).encode()).hexdigest(),
        "extensions": sorted(set(_extensions(connection, tables.values()))),
    }


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, Table]:
    """Return every table, by its name, with its schema's before it unless that is main.

    Where a dot in a name makes that the name of two, the second has both quoted.
    """
    found: dict[str, Table] = {}
    rows = _asked(
        connection,
        "SELECT c.schema_name, c.table_name, c.column_name, c.data_type, c.is_generated"
        " FROM duckdb_columns() c JOIN duckdb_tables() t USING (database_name, table_oid)"
        " WHERE c.database_name = current_database() AND NOT c.internal"
        " ORDER BY c.schema_name, c.table_name, c.column_index",
    )
    for schema, name, column, kind, computed in rows:
        key = name if schema == "main" else f"{schema}.{name}"
        sql = f"{_quoted(schema)}.{_quoted(name)}"
        if key in found and found[key].sql != sql:
            key = sql
        table = found.setdefault(key, Table(sql, []))
        table.columns.append((column, kind, bool(computed)))
    return found


def _read_through(connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, str]:
    """Read a table to its end; return its rows and a sum that any other value would change."""
    stored = [_quoted(column) for column, _kind, computed in table.columns if not computed]
    query = "SELECT count(*), sum(hash({})) FROM " + table.sql
    try:
        ((rows, content),) = _asked(connection, query.format(", ".join(stored)))
    except (duckdb.BinderException, duckdb.NotImplementedException):  # a type without a hash
        texts = ", ".join(f"CAST({column} AS VARCHAR)" for column in stored)
        ((rows, content),) = _asked(connection, query.format(texts))
    return int(rows), str(content)


def _schema(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield what a person wrote to make it all, without what changes as it is used."""
    own = "WHERE database_name = current_database() AND NOT internal"
    for source, what in (
        ("duckdb_tables()", "sql"),
        ("duckdb_views()", "sql"),
        ("duckdb_indexes()", "sql"),
        ("duckdb_schemas()", "schema_name"),
        ("duckdb_types()", "concat_ws(' ', type_name, logical_type, labels::VARCHAR)"),
        (
            "duckdb_functions()",
            "concat_ws(' ', function_name, parameters::VARCHAR, macro_definition)",
        ),
        ("duckdb_sequences()", "concat_ws(' ', sequence_name, increment_by, max_value, cycle)"),
    ):
        where = own.removesuffix(" AND NOT internal") if source == "duckdb_sequences()" else own
        if source == "duckdb_indexes()":
            where = own.removesuffix(" AND NOT internal")
        for schema, text in _asked(connection, f"SELECT schema_name, {what} FROM {source} {where}"):
            yield f"{source} {schema} {text}"


def _extensions(connection: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> Iterator[str]:
    """Yield the extensions that a program needs to write to this, as far as the catalog tells."""
    own = "WHERE database_name = current_database()"
    for (sql,) in _asked(connection, f"SELECT sql FROM duckdb_indexes() {own}"):
        for word in _USING.findall(sql or ""):
            if word.upper() in _EXTENSIONS:
                yield _EXTENSIONS[word.upper()]
    for (schema,) in _asked(connection, f"SELECT schema_name FROM duckdb_schemas() {own}"):
        if _FULL_TEXT.fullmatch(schema):
            yield "fts"
    for table in tables:
        for _column, kind, _computed in table.columns:
            if kind in _OF_TYPES:
                yield _OF_TYPES[kind]


def _storage_version(connection: duckdb.DuckDBPyConnection) -> str:
    rows = _asked(
        connection, "SELECT tags FROM duckdb_databases() WHERE database_name = current_database()"
    )
    return str(dict(rows[0][0]).get("storage_version", "")) if rows else ""


def _found(tables: Mapping[str, Table], wanted: str) -> str:
    """Return a table's name as the catalog spells it."""
    match = next((name for name in tables if name.lower() == wanted.lower()), None)
    if match is None:
        raise NoTable(f"there are: {', '.join(tables) or 'none'}")
    return match


def _asked(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return text.replace("'", "''")


def _why(error: Exception) -> str:
    text = str(error)
    if isinstance(error, NoTable):
        return "no-table"
    if _TOO_NEW.search(text):
        return "too-new"
    if _LOCKED in text:
        return "locked"
    return "full" if _FULL.search(text) else "damaged"


_OPERATIONS: Mapping[str, Callable[[str, Sequence[str]], Answer]] = {
    "look": look,
    "peek": peek,
    "fold": fold,
    "empty": empty,
    "value": value,
}


def main(argv: Sequence[str]) -> None:
    """Do the one thing, and print what came of it."""
    os.umask(0o077)
    try:
        answer = _OPERATIONS[argv[1]](argv[2], argv[3:])
    except (duckdb.Error, NoTable, UnicodeDecodeError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        answer = {"fault": first[0], "why": _why(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv)
