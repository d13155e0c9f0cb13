"""Where each blob lies: the contents of all index files, in about 57 bytes a blob.

A repository of one gigabyte in chunks of 16 KiB has 65,000 blobs, and a backup looks each of
them up; as objects they would cost 400 bytes each. So entries stay packed, and a hash table of
entry numbers finds them:

    entry    = blob id (32) │ kind (1) │ offset (4) │ length (4) │ plain length (4)
    entries  = all of them, those of one listing of a pack side by side
    table    = uint32 each: 0 for empty, else 1 + the entry's number; at most half full

An index that was kept (`thawed`) gets its table when more than a few blobs are looked for: a backup
of what did not change asks for five, and searching its 3 MB for each takes less.

The hash is Python's own for bytes, salted per process: ids are SHA-256, but who chooses what is
backed up could choose ids that collide in any hash known beforehand. A pack listed again adds
only what it did not list before. The same blob in several packs is legal, and every place of it
is kept.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from threading import Lock
from typing import NamedTuple

from mcp_backup.format.blob import BlobKind
from mcp_backup.format.crypto import OVERHEAD
from mcp_backup.format.ids import ID_SIZE, BlobId, IndexId, PackId
from mcp_backup.format.pack import PackEntry

_ENTRY = struct.Struct("<32sBIII")
_ID = struct.Struct("<32s13x")  # of an entry, alone
_SIZE = _ENTRY.size
_HANDLE = ID_SIZE + 1  # an id and its kind: what an entry begins with
_PLACE = struct.Struct("<III")
_COUNTS = struct.Struct("<III")  # of listings, entries, whole trees
_KINDS = tuple(BlobKind)
_KIND_BYTE = tuple(bytes([kind]) for kind in BlobKind)
_SMALLEST_TABLE = 1 << 10
_FEW = 8  # lookups without a table; each takes 0.3 ms a gigabyte, making it 10
_MOST_WHOLE = 256  # directories known to be whole: those of the newest backups are asked for


class Location(NamedTuple):
    """Where a sealed blob lies. `plain_length` is 0 when it is stored uncompressed."""

    pack: PackId
    offset: int
    length: int
    plain_length: int

    @property
    def size(self) -> int:
        """Bytes of the blob's plaintext."""
        return self.plain_length or self.length - OVERHEAD


class BlobIndex:
    """Finds blobs, and lists packs. Lookups may come from any thread while nobody adds.

    Nothing ever leaves an index, so what it was once found to have whole it has: it remembers some
    directories below which it has every blob.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._whole: dict[BlobId, None] = {}  # in the order of their finding
        self._entries = bytearray()
        self._count = 0
        self._table = array("I", bytes(4 * _SMALLEST_TABLE))
        self._inserted = 0  # entries that are in the table: all, or not yet those that were kept
        self._searches, self._inserting = 0, Lock()
        self._packs: list[PackId] = []  # the pack of each listing
        self._starts = array("Q")  # the number of each listing's first entry
        self._listing_of: dict[PackId, int] = {}  # a pack's first listing
        self._more: dict[PackId, list[int]] = {}  # its others, where index files disagreed

    def is_whole(self, tree: BlobId) -> bool:
        """Tell whether every blob below a directory is known to be in the index."""
        return tree in self._whole

    def found_whole(self, tree: BlobId) -> None:
        """Remember that every blob below a directory is in the index."""
        self._whole[tree] = None
        while len(self._whole) > _MOST_WHOLE:
            del self._whole[next(iter(self._whole))]

    @property
    def newest_whole(self) -> BlobId | None:
        """The directory found whole last."""
        return next(reversed(self._whole), None)

    def frozen(self) -> list[bytes]:
        """Return all of it as bytes, in parts to be written one after the other."""
        counts = _COUNTS.pack(len(self._packs), self._count, len(self._whole))
        starts = self._starts.tobytes()
        return [counts, *self._packs, starts, *self._whole, bytes(self._entries)]

    @classmethod
    def thawed(cls, data: memoryview) -> "BlobIndex":
        """Return what was `frozen` by a machine of this kind; the caller knows that it was."""
        listings, count, whole = _COUNTS.unpack_from(data)
        index, at = cls(), _COUNTS.size
        index._packs = [PackId(each) for each in _ids(data, at, listings)]
        at += listings * ID_SIZE
        index._starts.frombytes(data[at : at + listings * 8])
        at += listings * 8
        index._whole = dict.fromkeys(map(BlobId, _ids(data, at, whole)))
        index._entries, index._count = bytearray(data[at + whole * ID_SIZE :]), count
        for number, pack in enumerate(index._packs):
            if index._listing_of.setdefault(pack, number) != number:
                index._more.setdefault(pack, []).append(number)
        return index

    def __len__(self) -> int:
        """Return the number of entries; a blob in two packs counts twice."""
        return self._count

    def __contains__(self, handle: tuple[BlobKind, BlobId]) -> bool:
        """Tell whether the blob of that kind and id is in some indexed pack."""
        return self.position(*handle) is not None

    def add(self, pack: PackId, entries: Iterable[PackEntry]) -> None:
        """Take in the entries of one pack. Listing a pack again with the same entries is legal."""
        self.add_packed(pack, packed(entries))

    def add_packed(self, pack: PackId, listing: bytes) -> None:
        """Take in the entries of one pack, as `packed` made them (in another thread, say)."""
        if pack in self._listing_of:
            listing = self._unknown(pack, listing)
            if not listing:
                return
            self._more.setdefault(pack, []).append(len(self._packs))
        else:
            self._listing_of[pack] = len(self._packs)
        self._packs.append(pack)
        self._starts.append(self._count)
        self._entries += listing
        behind = self._inserted < self._count
        self._count = len(self._entries) // _SIZE
        if not behind:
            self._whole_table()

    def find(self, kind: BlobKind, identity: BlobId) -> Location | None:
        """Return where the blob lies, or None; of several places, the one listed first."""
        number = self.position(kind, identity)
        return None if number is None else self._location(number)

    def find_each(
        self, kind: BlobKind, identities: Collection[BlobId]
    ) -> Iterator[tuple[BlobId, Location | None]]:
        """Yield what `find` returns for each, in order: faster, where neighbours share a pack."""
        first, end, pack = 0, 0, PackId(b"")
        unpack, entries = _PLACE.unpack_from, self._entries
        for identity, number in zip(identities, self.positions(kind, identities), strict=True):
            if number is None:
                yield identity, None
                continue
            if not first <= number < end:
                at = bisect_right(self._starts, number) - 1
                first, pack = self._starts[at], self._packs[at]
                end = self._starts[at + 1] if at + 1 < len(self._starts) else self._count
            yield identity, Location(pack, *unpack(entries, number * _SIZE + _HANDLE))

    def find_all(self, kind: BlobKind, identity: BlobId) -> list[Location]:
        """Return every place where the blob lies, the one that `find` gives first."""
        if self._few_yet():
            return [*map(self._location, self._searched(identity + _KIND_BYTE[kind]))]
        table = self._whole_table()
        mask = len(table) - 1
        slot = hash(identity) & mask
        handle = identity + _KIND_BYTE[kind]
        found = []
        while number := table[slot]:
            if self._entries.startswith(handle, (number - 1) * _SIZE):
                found.append(self._location(number - 1))
            slot = (slot + 1) & mask
        return found

    def position(self, kind: BlobKind, identity: BlobId) -> int | None:
        """Return the blob's number, below `len(self)` and stable: good for marking bits."""
        if self._few_yet():
            return next(self._searched(identity + _KIND_BYTE[kind]), None)
        table = self._whole_table()
        mask = len(table) - 1
        slot = hash(identity) & mask
        if not table[slot]:
            return None
        handle = identity + _KIND_BYTE[kind]
        begins = self._entries.startswith
        while number := table[slot]:
            if begins(handle, (number - 1) * _SIZE):
                return number - 1
            slot = (slot + 1) & mask
        return None

    def positions(self, kind: BlobKind, identities: Iterable[BlobId]) -> list[int | None]:
        """Return what `position` returns for each, in order, in half of the time."""
        table, begins, kind_byte = self._whole_table(), self._entries.startswith, _KIND_BYTE[kind]
        mask = len(table) - 1
        found = list[int | None]()
        for identity in identities:
            slot = hash(identity) & mask
            number = table[slot]
            while number and not begins(identity + kind_byte, (number - 1) * _SIZE):
                slot = (slot + 1) & mask
                number = table[slot]
            found.append(number - 1 if number else None)
        return found

    def missing(self, kind: BlobKind, identities: Sequence[BlobId]) -> list[int]:
        """Return at which places of `identities` there are blobs that are in no indexed pack.

        Blobs that were saved together mostly are asked for together, so each is looked for behind
        the last before it is looked up: twice as fast as `positions`.
        """
        table, begins, kind_byte = self._whole_table(), self._entries.startswith, _KIND_BYTE[kind]
        mask = len(table) - 1
        missing, following = list[int](), 0  # of the entries, the one behind the last found
        for n, identity in enumerate(identities):
            handle = identity + kind_byte
            if begins(handle, following * _SIZE):
                following += 1
                continue
            slot = hash(identity) & mask
            following = table[slot]
            while following and not begins(handle, (following - 1) * _SIZE):
                slot = (slot + 1) & mask
                following = table[slot]
            if not following:
                missing.append(n)
        return missing

    def plain_length(self, kind: BlobKind, identity: BlobId) -> int | None:
        """Return the bytes of the blob's plaintext, or None for a blob that is in no pack."""
        number = self.position(kind, identity)
        if number is None:
            return None
        _, length, plain = _PLACE.unpack_from(self._entries, number * _SIZE + _HANDLE)
        return int(plain or length - OVERHEAD)

    @property
    def pack_count(self) -> int:
        """The number of packs listed."""
        return len(self._listing_of)

    def packs(self) -> Iterator[PackId]:
        """Walk the indexed packs, in the order they were first listed."""
        return iter(tuple(self._listing_of))

    def has_pack(self, pack: PackId) -> bool:
        """Tell whether the pack is listed."""
        return pack in self._listing_of

    def entries(self, pack: PackId) -> list[PackEntry]:
        """Return the entries of one pack, ordered by offset; none for a pack not listed."""
        found = [
            PackEntry(_KINDS[kind], BlobId(blob), offset, length, plain)
            for listing in self._listings(pack)
            for blob, kind, offset, length, plain in _ENTRY.iter_unpack(listing)
        ]
        found.sort(key=lambda entry: entry.offset)
        return found

    def _location(self, number: int) -> Location:
        pack = self._packs[bisect_right(self._starts, number) - 1]
        return Location(pack, *_PLACE.unpack_from(self._entries, number * _SIZE + _HANDLE))

    def _listings(self, pack: PackId) -> Iterator[bytes]:
        if pack not in self._listing_of:
            return
        for at in (self._listing_of[pack], *self._more.get(pack, ())):
            end = self._starts[at + 1] if at + 1 < len(self._starts) else self._count
            yield bytes(self._entries[self._starts[at] * _SIZE : end * _SIZE])

    def _unknown(self, pack: PackId, listing: bytes) -> bytes:
        known = list(self._listings(pack))
        if listing in known:
            return b""
        have = {entry for old in known for entry in _split(old)}
        return b"".join(entry for entry in _split(listing) if entry not in have)

    def _few_yet(self) -> bool:
        """Tell whether a blob is to be searched, since the table is not there; count it."""
        if self._inserted == self._count or self._searches >= _FEW:
            return False
        self._searches += 1
        return True

    def _searched(self, handle: bytes) -> Iterator[int]:
        """Find a blob's entries without the table, in the order in which it has them."""
        at = self._entries.find(handle)
        while at >= 0:
            if at % _SIZE == 0:  # and not, by chance, across the border of two
                yield at // _SIZE
            at = self._entries.find(handle, at + 1)

    def _whole_table(self) -> "array[int]":
        """Return the table, with all entries in it."""
        if self._inserted < self._count:
            with self._inserting:  # of several threads that look, one
                if self._count * 2 > len(self._table):
                    self._grow()
                self._insert(self._inserted)
                self._inserted = self._count
        return self._table

    def _grow(self) -> None:
        size = len(self._table)
        while self._count * 2 > size:
            size *= 2
        self._table, self._inserted = array("I", bytes(4 * size)), 0

    def _insert(self, first: int) -> None:
        table = self._table
        mask = len(table) - 1
        number = first
        with memoryview(self._entries)[first * _SIZE :] as entries:
            for (blob,) in _ID.iter_unpack(entries):
                number += 1
                slot = hash(blob) & mask
                while table[slot]:
                    slot = (slot + 1) & mask
                table[slot] = number


Recalled = tuple[BlobIndex, Set[IndexId]]  # an index, and the index files that it was made of


def packed(entries: Iterable[PackEntry]) -> bytes:
    """Return the entries in the form in which the index keeps them."""
    pack = _ENTRY.pack
    return b"".join(
        [pack(blob, kind, offset, length, plain) for kind, blob, offset, length, plain in entries]
    )


def _ids(data: memoryview, start: int, count: int) -> list[bytes]:
    return [bytes(data[at : at + ID_SIZE]) for at in range(start, start + count * ID_SIZE, ID_SIZE)]


def _split(listing: bytes) -> list[bytes]:
    return [listing[at : at + _SIZE] for at in range(0, len(listing), _SIZE)]
