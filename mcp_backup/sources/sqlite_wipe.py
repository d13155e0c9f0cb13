"""Bytes that no row owns, in a private copy of a database: zeroed, so that they tell nothing.

SQLite leaves what it deletes, moves or outgrows lying in its pages, and hands pages from one table
to another as they are. Four places, none of which is ever read:

    table and index pages    between the cell pointers and the cells, and in freed blocks
    overflow pages           behind the end of a long value
    free pages               leaves wholly, trunks behind their list

Source: "Database File Format", sections 1.5 to 1.8.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from mcp_backup.sources.sqlite_reading import connected

_INTERIOR = (2, 5)  # page types with a 12-byte header; leaves have 8 bytes
_Span = tuple[int, int]  # from, to: offsets in a page


class _Pages(Struct, frozen=True):
    """The copy's pages: their size in bytes, how much of it is usable, and how many there are."""

    descriptor: int
    size: int
    usable: int
    count: int
    first_free: int

    def read(self, number: int) -> bytes:
        return os.pread(self.descriptor, self.size, (number - 1) * self.size)

    def zero(self, number: int, page: bytes, spans: Iterator[_Span]) -> None:
        """Zero spans of a page, and write it if that changed anything."""
        wiped = bytearray(page)
        for start, end in spans:
            wiped[start:end] = bytes(max(0, min(end, self.size) - start))
        if wiped != page and len(wiped) == len(page):
            os.pwrite(self.descriptor, wiped, (number - 1) * self.size)


def wipe_unused(copy: Path) -> None:
    """Zero all that no row owns in the private, closed database `copy`."""
    with open(copy, "r+b", buffering=0) as file:
        pages = _pages(file.fileno())
        for number, kind, unused in _tree_pages(copy):
            page = pages.read(number)
            if kind == "overflow":
                pages.zero(number, page, iter([(pages.usable - unused, pages.usable)]))
            else:
                pages.zero(number, page, _unowned(page, 100 if number == 1 else 0))
        _wipe_free_pages(pages)


def _pages(descriptor: int) -> _Pages:
    header = os.pread(descriptor, 100, 0)
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    count = os.fstat(descriptor).st_size // size
    first_free = int.from_bytes(header[32:36], "big")
    return _Pages(descriptor, size, size - header[20], count, first_free)


def _tree_pages(copy: Path) -> Iterator[tuple[int, str, int]]:
    """Yield number, type and unused bytes of each page that belongs to a table or an index."""
    connection = connected(copy, query="?immutable=1")
    try:
        yield from connection.execute("SELECT pageno, pagetype, unused FROM dbstat")
    finally:
        connection.close()


def _unowned(page: bytes, header: int) -> Iterator[_Span]:
    """Yield the gap and the freed blocks of a table or index page."""
    cells = _number(page, header + 3)
    content = _number(page, header + 5) or 65536
    yield header + (12 if page[header] in _INTERIOR else 8) + 2 * cells, content
    block, seen = _number(page, header + 1), set[int]()
    while block and block not in seen and block + 4 <= len(page):
        seen.add(block)
        yield block + 4, block + _number(page, block + 2)
        block = _number(page, block)


def _number(page: bytes, offset: int) -> int:
    return int.from_bytes(page[offset : offset + 2], "big")


def _wipe_free_pages(pages: _Pages) -> None:
    """Zero pages that no table uses: a chain of trunks, each naming the next and its leaves."""
    trunk, seen = pages.first_free, set[int]()
    while 0 < trunk <= pages.count and trunk not in seen:
        seen.add(trunk)
        page = pages.read(trunk)
        end = 8 + 4 * min(int.from_bytes(page[4:8], "big"), pages.size // 4 - 2)
        for position in range(8, end, 4):
            leaf = int.from_bytes(page[position : position + 4], "big")
            if 0 < leaf <= pages.count:
                pages.zero(leaf, pages.read(leaf), iter([(0, pages.size)]))
        pages.zero(trunk, page, iter([(end, pages.size)]))
        trunk = int.from_bytes(page[:4], "big")
