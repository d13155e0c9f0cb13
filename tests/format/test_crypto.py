import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.crypto import OVERHEAD, MasterKey, Sealer
from tests.format.strategies import damaged

KEY = MasterKey(bytes(range(32)), bytes(range(0x20, 0x30)), bytes(range(0x30, 0x40)))
IV = bytes(range(0x40, 0x50))
PLAINTEXT = b"mcp-backup test vector"
SEALED = bytes.fromhex(
    "404142434445464748494a4b4c4d4e4fce1daf12f53bd984e60b42b3e828c577c6107de7c79cb7a8"
    "60b248172b87430b9bef7df2337c"
)


def test_the_published_vector_is_sealed_and_unsealed() -> None:
    sealer = Sealer(KEY)
    assert sealer.seal(PLAINTEXT, iv=IV) == SEALED
    assert sealer.unseal(SEALED) == PLAINTEXT


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_round_trip_with_one_sealer_for_many(first: bytes, second: bytes) -> None:
    sealer = Sealer(KEY)
    one, two = sealer.seal(first), sealer.seal(second)
    assert len(one) == len(first) + OVERHEAD
    assert (sealer.unseal(two), sealer.unseal(memoryview(one))) == (second, first)


def test_two_seals_of_the_same_bytes_differ() -> None:
    sealer = Sealer(KEY)
    assert sealer.seal(PLAINTEXT) != sealer.seal(PLAINTEXT)


@given(damaged(SEALED))
def test_damage_anywhere_is_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Sealer(KEY).unseal(data)


@given(st.binary(max_size=100))
def test_any_other_bytes_are_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Sealer(KEY).unseal(data)


def test_another_key_is_an_integrity_error() -> None:
    other = MasterKey(KEY.encrypt, KEY.mac_k, bytes(16))
    with pytest.raises(IntegrityError, match="another key"):
        Sealer(other).unseal(SEALED)


def test_a_nonce_of_zeros_is_neither_written_nor_read() -> None:
    sealer = Sealer(KEY)
    with pytest.raises(ValueError, match="zeros"):
        sealer.seal(b"x", iv=bytes(16))
    with pytest.raises(ValueError, match="zeros"):
        sealer.seal_each([b"x"], bytes(16), memoryview(bytearray(64)))
    with pytest.raises(IntegrityError, match="zeros"):
        sealer.unseal(bytes(64))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_sealing_in_bulk_writes_what_sealing_one_by_one_returns(chunks: list[bytes]) -> None:
    sealer, out = Sealer(KEY), memoryview(bytearray(4096))
    ivs = bytes(range(1, 1 + 16 * len(chunks)))
    expected = [sealer.seal(chunk, iv=ivs[16 * n : 16 * n + 16]) for n, chunk in enumerate(chunks)]
    lengths = sealer.seal_each(iter(chunks), ivs, out)
    assert lengths == list(map(len, expected))
    assert out[: sum(lengths)] == b"".join(expected)


@pytest.mark.parametrize("slack", [0, 1, 7, 16, 32, 33, 200, 16384])
def test_a_chunk_may_be_sealed_over_itself(slack: int) -> None:
    chunk = os.urandom(20_000)
    area = memoryview(bytearray(slack) + chunk + bytes(64))
    sealer = Sealer(KEY)
    (length,) = sealer.seal_each([area[slack : slack + len(chunk)]], IV, area)
    assert sealer.unseal(area[:length]) == chunk


def test_chunks_larger_than_any_before_are_sealed_whole() -> None:
    sealer, chunk = Sealer(KEY), os.urandom(3 << 20)
    out = memoryview(bytearray(len(chunk) + OVERHEAD))
    assert sealer.seal_each([chunk], IV, out) == [len(out)]
    assert sealer.unseal(out) == chunk


def test_a_key_does_not_show_itself_and_has_one_size() -> None:
    assert "encrypt" not in repr(KEY)
    assert repr(KEY.encrypt)[2:-1] not in repr(KEY)
    with pytest.raises(ValueError, match="32, 16 and 16"):
        MasterKey(b"short", KEY.mac_k, KEY.mac_r)
