import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.pack import (
    MAX_HEADER,
    PackEntry,
    decode_header,
    encode_header,
    encode_trailer,
    header_size,
    pack_size,
    sealed_header_length,
)
from tests.format.strategies import damaged, pack_entries, value_or_refusal
from tests.format.test_crypto import KEY

HELLO = BlobId(digest(b"hello"))
ENTRIES = [
    PackEntry(BlobKind.DATA, HELLO, 0, 40, 100),
    PackEntry(BlobKind.DATA, HELLO, 40, 37, 0),
    PackEntry(BlobKind.TREE, HELLO, 77, 50, 60),
]


def test_the_published_pack_is_written_and_read() -> None:
    sealer = Sealer(KEY)
    blob = sealer.seal(b"hello", iv=bytes([1] * 16))
    entries = [PackEntry(BlobKind.DATA, HELLO, 0, len(blob), 0)]
    pack = blob + encode_trailer(sealer.seal(encode_header(entries), iv=bytes([2] * 16)))
    assert len(pack) == pack_size(entries) == 110
    assert digest(pack).hex() == "b05288cde9648d49b5923b393a0e3c92631fbedca6e5210a9c3afc2d9b65b3b4"
    length = sealed_header_length(pack[-4:], len(pack))
    assert length + 4 == header_size(entries)
    assert decode_header(sealer.unseal(pack[-4 - length : -4])) == entries


@given(pack_entries())
def test_round_trip(entries: list[PackEntry]) -> None:
    header = encode_header(entries)
    assert decode_header(header) == entries
    assert len(header) + 36 == header_size(entries)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_entries_or_an_integrity_error(data: bytes) -> None:
    entries = value_or_refusal(decode_header, data)
    assert entries is None or encode_header(entries) == data  # type: ignore[arg-type]


@given(damaged(encode_header(ENTRIES)))
def test_a_damaged_header_is_entries_or_an_integrity_error(data: bytes) -> None:
    entries = value_or_refusal(decode_header, data)
    assert entries is None or encode_header(entries) == data  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "0 bytes"),
        (b"\x04" + bytes(40), "unknown blob kind 4"),
        (b"\x00" + bytes(35), "end inside entry 0"),
        (encode_header(ENTRIES)[:-1], "end inside entry 2"),
        (b"\x00" + struct.pack("<I", 31) + HELLO, "31 bytes at 0"),
        (b"\x02" + struct.pack("<II", 40, 0) + HELLO, "compressed blob of 0 bytes"),
        ((b"\x00" + struct.pack("<I", 0xFFFFFFFF) + HELLO) * 3, "entry 2 is"),
        (bytes(MAX_HEADER), "16777216 bytes"),
    ],
)
def test_an_impossible_header_says_what_is_wrong(header: bytes, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        decode_header(header)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [PackEntry(BlobKind.DATA, HELLO, 1, 40, 0)],
        [PackEntry(BlobKind.DATA, HELLO, 0, 31, 0)],
        [ENTRIES[0], ENTRIES[2]],
    ],
)
def test_a_header_with_gaps_or_nothing_is_not_written(entries: list[PackEntry]) -> None:
    with pytest.raises(ValueError, match="pack"):
        encode_header(entries)


@given(st.binary(max_size=8), st.integers(0, 1 << 33))
def test_any_tail_is_a_length_within_the_pack_or_an_integrity_error(tail: bytes, size: int) -> None:
    length = value_or_refusal(lambda tail: sealed_header_length(tail, size), tail)
    assert length is None or (isinstance(length, int) and 69 <= length <= size - 36)


def test_a_header_longer_than_the_pack_is_an_integrity_error() -> None:
    assert sealed_header_length(struct.pack("<I", 69), 110) == 69
    with pytest.raises(IntegrityError, match="a header of 75 bytes in a pack of 110"):
        sealed_header_length(struct.pack("<I", 75), 110)
