import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.unpacked import decode_unpacked, encode_unpacked
from tests.format.strategies import damaged, plain_text, value_or_refusal

DOCUMENT = b'{"time":"2026-11-22T18:29:03Z"}'


@given(st.lists(plain_text, max_size=20))
def test_round_trip(texts: list[str]) -> None:
    document = ("[" + ",".join(f'"{text}"' for text in texts) + "]").encode()
    plain = encode_unpacked(document)
    assert plain[0] == 2
    assert decode_unpacked(plain) == document


def test_raw_json_is_read_as_it_is() -> None:
    assert decode_unpacked(DOCUMENT) == DOCUMENT
    assert decode_unpacked(b"[]") == b"[]"
    assert decode_unpacked(b"") == b""


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda data: b"\x02" + data))
def test_any_other_bytes_are_a_document_or_refused(data: bytes) -> None:
    value_or_refusal(decode_unpacked, data)


@given(damaged(encode_unpacked(DOCUMENT)))
def test_a_damaged_document_is_a_document_or_refused(data: bytes) -> None:
    value_or_refusal(decode_unpacked, data)


def test_an_unknown_encoding_is_called_that() -> None:
    with pytest.raises(UnsupportedFormat, match="encoding 03"):
        decode_unpacked(b"\x03whatever")


def test_no_more_than_the_limit_is_read() -> None:
    document = b"[" + b" " * (8 << 20) + b"]"
    plain = encode_unpacked(document)
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="more than the 1000 bytes"):
        decode_unpacked(plain, limit=1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(IntegrityError, match="at most 1000"):
        decode_unpacked(document, limit=1000)
    assert decode_unpacked(plain, limit=len(document)) == document


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_unpacked(b"\x02")
