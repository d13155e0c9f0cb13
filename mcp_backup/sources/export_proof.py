"""The proof of an SQL dump: it is loaded like the shell would, and compared in every value."""

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import apsw

from mcp_backup.sources.export_reading import (
    PRAGMAS,
    Object,
    catalogue,
    is_virtual,
    raw_rows,
    refused,
    stored_columns,
)

ABOUT = "-- "  # begins the line that says what the next statements are about
DEFENSIVE_OFF = ".dbconfig defensive off"  # to the shell, not to SQLite

_TERMINATORS = (b"/", b"go")  # alone on a line, the shell takes them for a semicolon


def prove(image: apsw.Connection, dump: Path, scratch: Path) -> str:
    """Load `dump` into the new database `scratch`, compare it with the image; say what was shown.

    Raises:
        NotExportable: it does not load, or what comes back is not what the image holds.
    """
    scratch.unlink(missing_ok=True)
    copy = apsw.Connection(str(scratch))
    try:
        _load(dump, copy)
    finally:
        copy.close()
    copy = apsw.Connection(str(scratch), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return _compare(image, copy)
    finally:
        copy.close()


def _load(dump: Path, copy: apsw.Connection) -> None:
    copy.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
    copy.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)  # as recent shells do
    about = "the database"
    for statement in _statements(dump):
        if statement == DEFENSIVE_OFF:
            copy.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        elif statement.startswith(ABOUT):
            about = statement[len(ABOUT) :].strip()
        else:
            try:
                copy.execute(statement)
            except (apsw.FullError, apsw.IOError, apsw.CantOpenError):
                raise
            except apsw.Error as error:
                raise refused(about, str(error)) from error


def _statements(dump: Path) -> Iterator[str]:
    """Split a script as the shell does: by lines, and where SQLite says that it is complete."""
    pending = b""
    with open(dump, "rb") as file:
        for whole in file:
            line = whole.removesuffix(b"\n").removesuffix(b"\r")
            if not pending and line.startswith((ABOUT.encode(), DEFENSIVE_OFF.encode())):
                yield line.decode()
                continue
            if line.strip().lower() in _TERMINATORS and apsw.complete(pending.decode() + ";"):
                line = b";"
            pending += line + b"\n"
            if b";" in line and apsw.complete(pending.decode()):
                yield pending.decode()
                pending = b""
    if pending.strip():
        raise refused("the database", "a statement that the shell takes for unfinished")


def _compare(image: apsw.Connection, copy: apsw.Connection) -> str:
    for pragma in PRAGMAS:
        if image.pragma(pragma) != copy.pragma(pragma):
            raise refused(f"PRAGMA {pragma}", f"it comes back as {copy.pragma(pragma)!r}")
    objects = catalogue(image)
    _compare_catalogues(objects, catalogue(copy))
    tables = [item.name for item in objects if item.type == "table" and not is_virtual(item)]
    count = sum(_compare_rows(image, copy, table) for table in tables)
    return (
        f"reloaded and compared: {len(objects)} objects of the schema, "
        f"{count} rows in {len(tables)} tables"
    )


def _compare_catalogues(expected: Sequence[Object], got: Sequence[Object]) -> None:
    names = {(item.type, item.name): item for item in got}
    for item in expected:
        if names.pop((item.type, item.name), None) != item:
            raise refused(f"{item.type} {item.name!r}", "its definition comes back different")
    for type_, name in names:
        raise refused(f"{type_} {name!r}", "loading makes it, and the image does not have it")


def _compare_rows(image: apsw.Connection, copy: apsw.Connection, table: str) -> int:
    columns = stored_columns(image, table)
    pairs = zip_longest(raw_rows(image, table, columns), raw_rows(copy, table, columns))
    number = 0
    for number, (expected, got) in enumerate(pairs, 1):
        if expected is None or got is None:
            raise refused(f"table {table!r}", f"row {number} is there only once")
        if expected != got or not _same_signs(expected, got):
            column = next(
                name
                for index, name in enumerate(columns)
                if expected[2 * index : 2 * index + 2] != got[2 * index : 2 * index + 2]
                or not _same_signs(expected[2 * index :][1:2], got[2 * index :][1:2])
            )
            raise refused(
                f"table {table!r}", f"column {column!r} of row {number} comes back different"
            )
    return number


def _same_signs(expected: Sequence[object], got: Sequence[object]) -> bool:
    """Tell 0.0 from -0.0, which are equal."""
    if 0.0 not in expected:
        return True
    return all(
        math.copysign(1, one) == math.copysign(1, other)
        for one, other in zip(expected, got, strict=True)
        if isinstance(one, float) and isinstance(other, float)
    )
