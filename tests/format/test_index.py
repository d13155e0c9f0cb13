import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, PackId
from mcp_backup.format.index import PackListing, decode_index, encode_index
from mcp_backup.format.pack import PackEntry
from tests.format.strategies import any_json, ids, pack_entries, tampered, value_or_refusal

LISTING = PackListing(
    PackId(bytes(32)),
    (
        PackEntry(BlobKind.DATA, BlobId(bytes([1] * 32)), 0, 38, 4096),
        PackEntry(BlobKind.DATA, BlobId(bytes([2] * 32)), 38, 4128, 0),
    ),
)
listings = st.builds(PackListing, ids.map(PackId), pack_entries().map(tuple))


@given(st.lists(listings, max_size=4))
def test_round_trip(packs: list[PackListing]) -> None:
    document = encode_index(packs)
    assert decode_index(document) == packs
    json.loads(document)


def test_members_are_those_that_restic_writes() -> None:
    (pack,) = json.loads(encode_index([LISTING]))["packs"]
    assert pack["id"] == "00" * 32
    assert pack["blobs"] == [
        {"id": "01" * 32, "type": "data", "offset": 0, "length": 38, "uncompressed_length": 4096},
        {"id": "02" * 32, "type": "data", "offset": 38, "length": 4128},
    ]


def test_what_older_versions_add_is_ignored() -> None:
    old = b'{"supersedes":["' + b"ab" * 32 + b'"],' + encode_index([LISTING])[1:] + b"\n"
    assert decode_index(old) == [LISTING]
    assert decode_index(b'{"packs":null}') == decode_index(b"{}") == []


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_an_index_or_an_integrity_error(data: bytes) -> None:
    value_or_refusal(decode_index, data)


@given(tampered(encode_index([LISTING])))
def test_a_tampered_index_is_an_index_or_an_integrity_error(data: bytes) -> None:
    packs = value_or_refusal(decode_index, data)
    assert packs is None or decode_index(encode_index(packs)) == packs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("id", "AB" * 32),
        ("id", "ab " * 32),
        ("id", None),
        ("type", "blob"),
        ("type", []),
        ("offset", -1),
        ("offset", 1 << 32),
        ("offset", True),
        ("length", 1.0),
        ("length", "38"),
        ("length", (1 << 32) - 38),
        ("uncompressed_length", 1 << 32),
        ("uncompressed_length", None),
    ],
)
def test_an_impossible_blob_is_an_integrity_error(member: str, value: object) -> None:
    document = json.loads(encode_index([LISTING]))
    document["packs"][0]["blobs"][1][member] = value
    with pytest.raises(IntegrityError, match="index"):
        decode_index(json.dumps(document).encode())


def test_nesting_without_end_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="not JSON"):
        decode_index(b'{"packs":' + b"[" * 1_000_000)
