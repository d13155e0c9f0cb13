"""An archive of `pg_dump -Fc -Z0`, read to its last byte without any program of PostgreSQL's.

    PGDMP  version  sizes  format  compression  times  database  server's and pg_dump's version
    n, and n times: id … tag, desc, section … namespace … owner … dependencies, offset
    blocks: of data (kind 1: id, pieces, 0) or of large objects (kind 3: id, oid, pieces, 0 … 0)

`pg_restore --list` reads the table of contents alone, and calls an archive whole that is cut off
in the middle. Here every block is read, the rows of each table are counted, and what the table
of contents promises has to be there.

Source: src/bin/pg_dump/pg_backup_archiver.c and pg_backup_custom.c, PostgreSQL 12 to 18.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct, field

_MAGIC = b"PGDMP"
_OLDEST, _NEWEST = (1, 12), (1, 16)
_CUSTOM = 1
_DATA, _LARGE_OBJECTS = 1, 3
_PIECE = 1 << 20
_MOST_TEXT = 64 << 20  # bytes of one definition
_MOST_ENTRIES = 10_000_000
_END = b"\\.\n"  # ends the rows of a table


class NoArchive(ValueError):
    """What is there is not a whole archive that this reader knows; says why."""


class Archive(Struct):
    """What an archive holds. `rows` is by table, as "schema.table"; `server` its version text.

    `entries` counts the table of contents by kind of object: "TABLE", "INDEX", "EXTENSION", ...
    """

    server: str
    program: str
    entries: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    large_objects: int = 0


class _Entry(Struct):
    id: int
    tag: str
    description: str
    namespace: str
    has_data: bool


def read(path: Path) -> Archive:
    """Read a whole archive.

    Raises:
        NoArchive: it is cut off, damaged, or of a version this reader does not know.
    """
    with open(path, "rb", buffering=_PIECE) as file:
        return _Reader(file).whole()


def program_of(path: Path) -> int:
    """Return the major version of the pg_dump that wrote an archive.

    Raises:
        NoArchive: it is none.
    """
    with open(path, "rb") as file:
        said = _Reader(file).head().program
    try:
        return int(said.split(".")[0].split("beta")[0].split("devel")[0].split("rc")[0])
    except ValueError as error:
        raise NoArchive(f"it says it was written by pg_dump {said!r:.40}") from error


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._version = (0, 0)
        self._integer_size = self._offset_size = 0

    def head(self) -> Archive:
        if self._exactly(5) != _MAGIC:
            raise NoArchive("it does not begin as an archive of pg_dump does")
        major, minor, _ = self._exactly(3)
        self._version = (major, minor)
        if not _OLDEST <= self._version <= _NEWEST:
            raise NoArchive(f"its format is {major}.{minor}, which this version does not know")
        self._integer_size, self._offset_size, kind = self._exactly(3)
        if kind != _CUSTOM or not 1 <= self._integer_size <= 8 or not 1 <= self._offset_size <= 8:
            raise NoArchive("it is not in the custom format")
        compression = self._exactly(1)[0] if self._version >= (1, 15) else self._integer()
        if compression:
            raise NoArchive("it is compressed")
        for _ in range(7):  # when it was made
            self._integer()
        self._text()
        return Archive(server=self._text(), program=self._text())

    def whole(self) -> Archive:
        archive = self.head()
        count = self._integer()
        if not 0 <= count <= _MOST_ENTRIES:
            raise NoArchive(f"its table of contents is said to have {count} entries")
        entries = {}
        for _ in range(count):
            entry = self._entry()
            entries[entry.id] = entry
            archive.entries[entry.description] = archive.entries.get(entry.description, 0) + 1
        missing = {entry.id for entry in entries.values() if entry.has_data}
        while kind := self._file.read(1):
            number = self._integer()
            if number not in missing:
                raise NoArchive(f"a block belongs to no entry of its table of contents: {number}")
            missing.remove(number)
            self._block(kind[0], entries[number], archive)
        if missing:
            tags = ", ".join(sorted(entries[number].tag for number in missing)[:5])
            raise NoArchive(f"it ends before the data of {len(missing)} entries: {tags:.200}")
        return archive

    def _entry(self) -> _Entry:
        number, dumper = self._integer(), self._integer()
        self._text(), self._text()  # oids
        tag, description = self._text(), self._text()
        self._integer()  # section
        for _ in range(3):  # definition, drop and copy statements
            self._text()
        namespace = self._text()
        self._text()  # tablespace
        if self._version >= (1, 14):
            self._text()  # access method
        if self._version >= (1, 16):
            self._integer()  # kind of relation
        self._text(), self._text()  # owner, with oids
        while self._maybe_text() is not None:  # dependencies
            pass
        self._exactly(1 + self._offset_size)
        return _Entry(number, tag, description, namespace, bool(dumper))

    def _block(self, kind: int, entry: _Entry, archive: Archive) -> None:
        if kind == _DATA:
            lines, last = 0, b""
            for piece in self._pieces():
                lines += piece.count(b"\n")
                last = piece
            if entry.description == "TABLE DATA":
                extra = last[last.rfind(_END) :].count(b"\n") if _END in last else 0
                archive.rows[f"{entry.namespace}.{entry.tag}"] = lines - extra
        elif kind == _LARGE_OBJECTS:
            while self._integer():
                archive.large_objects += 1
                for _ in self._pieces():
                    pass
        else:
            raise NoArchive(f"a block is of kind {kind}, which is none")

    def _pieces(self) -> Iterator[bytes]:
        """Yield the pieces of a block. pg_dump makes one of each row, so this is the hot path."""
        read, size = self._file.read, 1 + self._integer_size
        while (header := read(size)) and (length := int.from_bytes(header[1:], "little")):
            if header[0] or len(header) != size or length > _MOST_TEXT << 4:
                raise NoArchive(f"a piece of data has no size, at byte {self._file.tell()}")
            yield self._exactly(length)
        if len(header) != size:
            raise self._cut_off()

    def _integer(self) -> int:
        sign, *_ = self._exactly(1)
        value = int.from_bytes(self._exactly(self._integer_size), "little")
        return -value if sign else value

    def _text(self) -> str:
        return self._maybe_text() or ""

    def _maybe_text(self) -> str | None:
        length = self._integer()
        if length < 0:
            return None
        if length > _MOST_TEXT:
            raise NoArchive(f"a text in it is said to be {length} bytes long")
        return self._exactly(length).decode(errors="surrogateescape")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise self._cut_off()
        return data

    def _cut_off(self) -> NoArchive:
        return NoArchive(f"it ends in the middle, at byte {self._file.tell()}")
