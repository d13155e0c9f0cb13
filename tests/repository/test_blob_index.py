"""The index finds every blob it was given, in little memory."""

import hashlib
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, PackId
from mcp_backup.format.pack import PackEntry
from mcp_backup.repository.blob_index import BlobIndex, Location, packed


def numbered(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def entry(number: int, offset: int = 0, kind: BlobKind = BlobKind.DATA) -> PackEntry:
    return PackEntry(kind, BlobId(numbered(number)), offset, 100, 4096)


PACK, OTHER = PackId(numbered(1 << 40)), PackId(numbered(1 << 41))


def test_a_blob_is_found_where_its_pack_was_said_to_have_it() -> None:
    index = BlobIndex()
    index.add(PACK, [entry(1), PackEntry(BlobKind.DATA, BlobId(numbered(2)), 100, 77, 0)])
    assert index.find(BlobKind.DATA, BlobId(numbered(2))) == Location(PACK, 100, 77, 0)
    assert index.plain_length(BlobKind.DATA, BlobId(numbered(1))) == 4096
    assert index.plain_length(BlobKind.DATA, BlobId(numbered(2))) == 45
    assert len(index) == 2


def test_a_blob_of_the_other_kind_is_another_blob() -> None:
    index = BlobIndex()
    index.add(PACK, [entry(1, kind=BlobKind.TREE)])
    assert index.find(BlobKind.DATA, BlobId(numbered(1))) is None
    assert (BlobKind.TREE, BlobId(numbered(1))) in index


def test_a_blob_in_two_packs_has_two_places() -> None:
    index = BlobIndex()
    index.add(PACK, [entry(1)])
    index.add(OTHER, [entry(2), entry(1, 100)])
    places = index.find_all(BlobKind.DATA, BlobId(numbered(1)))
    assert [(place.pack, place.offset) for place in places] == [(PACK, 0), (OTHER, 100)]
    assert index.find(BlobKind.DATA, BlobId(numbered(1))) == places[0]


def test_a_pack_listed_twice_counts_once() -> None:
    index = BlobIndex()
    index.add(PACK, [entry(1), entry(2, 100)])
    index.add(PACK, [entry(1), entry(2, 100)])
    assert len(index) == 2


def test_a_pack_listed_in_parts_has_all_of_them_in_order() -> None:
    index = BlobIndex()
    index.add(PACK, [entry(2, 100), entry(3, 200)])
    index.add(OTHER, [entry(9)])
    index.add(PACK, [entry(1, 0), entry(2, 100)])
    assert index.entries(PACK) == [entry(1), entry(2, 100), entry(3, 200)]
    assert list(index.packs()) == [PACK, OTHER]


def test_a_pack_without_blobs_is_listed_and_harmless() -> None:
    index = BlobIndex()
    index.add(PACK, [])
    index.add(OTHER, [entry(1)])
    assert index.has_pack(PACK)
    assert index.entries(PACK) == []
    assert index.find(BlobKind.DATA, BlobId(numbered(1))) == Location(OTHER, 0, 100, 4096)


def test_positions_are_stable_and_below_the_length() -> None:
    index = BlobIndex()
    index.add(PACK, [entry(n) for n in range(900)])
    before = [index.position(BlobKind.DATA, BlobId(numbered(n))) for n in range(900)]
    index.add(OTHER, [entry(n) for n in range(900, 5000)])
    assert before == list(range(900))
    assert [index.position(BlobKind.DATA, BlobId(numbered(n))) for n in range(5000)] == list(
        range(5000)
    )


@given(st.lists(st.lists(st.integers(0, 300), unique=True, max_size=60), max_size=40))
def test_the_index_agrees_with_a_dictionary(packs: list[list[int]]) -> None:
    index, model = BlobIndex(), dict[int, list[PackId]]()
    for number, blobs in enumerate(packs):
        pack = PackId(numbered(1000 + number))
        index.add(pack, [entry(blob, at) for at, blob in enumerate(blobs)])
        for blob in blobs:
            model.setdefault(blob, []).append(pack)
    for blob in range(301):
        found = index.find_all(BlobKind.DATA, BlobId(numbered(blob)))
        assert sorted(place.pack for place in found) == sorted(model.get(blob, []))
    assert len(index) == sum(map(len, packs))
    asked = [BlobId(numbered(number)) for number in [*range(45), *range(44, -1, -1)]]
    together = list(index.find_each(BlobKind.DATA, asked))
    assert together == [(blob, index.find(BlobKind.DATA, blob)) for blob in asked]


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=6),
    st.lists(st.integers(0, 40), max_size=20),
    st.lists(st.integers(0, 40), max_size=8),
)
def test_an_index_that_was_kept_is_the_same_however_few_are_looked_for(
    packs: list[list[int]], asked: list[int], more: list[int]
) -> None:
    index = BlobIndex()
    for number, listed in enumerate(packs):
        pack = PackId(numbered((1 << 42) + number))
        index.add(pack, [entry(blob, 100 * n) for n, blob in enumerate(listed)])
    kept = BlobIndex.thawed(memoryview(b"".join(index.frozen())))
    for blob in map(BlobId, map(numbered, asked[:4])):
        assert kept.find(BlobKind.DATA, blob) == index.find(BlobKind.DATA, blob)
        assert kept.find_all(BlobKind.DATA, blob) == index.find_all(BlobKind.DATA, blob)
    for each in (index, kept):
        each.add(OTHER, [entry(blob, 100 * n) for n, blob in enumerate(more)])
    blobs = [BlobId(numbered(blob)) for blob in asked]
    assert [kept.find(BlobKind.DATA, blob) for blob in blobs] == [
        index.find(BlobKind.DATA, blob) for blob in blobs
    ]
    assert kept.positions(BlobKind.DATA, blobs) == index.positions(BlobKind.DATA, blobs)
    assert [kept.find_all(BlobKind.DATA, blob) for blob in blobs] == [
        index.find_all(BlobKind.DATA, blob) for blob in blobs
    ]
    assert kept.frozen() == index.frozen()


def test_what_lies_across_two_entries_is_no_blob() -> None:
    second = next(n for n in range(10_000) if numbered(n)[7] == BlobKind.DATA)
    index = BlobIndex()
    index.add(PACK, [entry(10_001), entry(second, 100)])
    data = b"".join(index.frozen())
    entries = data[-2 * 45 :]
    across = BlobId(entries[20:52])
    assert entries.find(across + bytes([BlobKind.DATA])) == 20
    kept = BlobIndex.thawed(memoryview(data))
    assert kept.find(BlobKind.DATA, across) is None
    assert kept.find(BlobKind.DATA, BlobId(numbered(second))) == Location(PACK, 100, 100, 4096)


def test_a_blob_costs_less_than_sixty_bytes() -> None:
    listings = [
        (PackId(numbered((1 << 50) + n)), packed(entry(n * 1000 + m) for m in range(1000)))
        for n in range(65)
    ]
    tracemalloc.start()
    try:
        index = BlobIndex()
        for pack, listing in listings:
            index.add_packed(pack, listing)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == 65_000
    assert used / len(index) < 60


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=6), st.lists(st.integers(0, 40)))
def test_what_is_missing_is_what_is_at_no_position(
    packs: list[list[int]], asked: list[int]
) -> None:
    index = BlobIndex()
    for number, listed in enumerate(packs):
        pack = PackId(numbered((1 << 42) + number))
        index.add(pack, [entry(blob, 100 * n) for n, blob in enumerate(listed)])
    blobs = [BlobId(numbered(blob)) for blob in asked]
    positions = index.positions(BlobKind.DATA, blobs)
    assert index.missing(BlobKind.DATA, blobs) == [
        n for n, position in enumerate(positions) if position is None
    ]
    assert index.missing(BlobKind.TREE, blobs) == [*range(len(blobs))]
