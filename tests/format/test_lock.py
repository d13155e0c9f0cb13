import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.lock import Lock, decode_lock, encode_lock
from tests.format.strategies import any_json, plain_text, tampered, value_or_refusal

LOCK = Lock(
    time=datetime(2026, 11, 22, 18, 29, 0, 100_000, tzinfo=UTC),
    exclusive=False,
    hostname="vm",
    username="root",
    pid=4711,
)
locks = st.builds(
    Lock,
    time=st.datetimes(timezones=st.just(UTC)),
    exclusive=st.booleans(),
    hostname=plain_text,
    username=plain_text,
    pid=st.integers(0, (1 << 32) - 1),
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
)


@given(locks)
def test_round_trip(lock: Lock) -> None:
    assert decode_lock(encode_lock(lock)) == lock


def test_members_are_those_of_restic_without_owners_that_are_root() -> None:
    assert encode_lock(LOCK) == (
        b'{"time":"2026-11-22T18:29:00.1Z","exclusive":false,"hostname":"vm","username":"root",'
        b'"pid":4711}'
    )


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_a_lock_or_an_integrity_error(data: bytes) -> None:
    value_or_refusal(decode_lock, data)


@given(tampered(encode_lock(LOCK)))
def test_a_tampered_lock_is_a_lock_or_an_integrity_error(data: bytes) -> None:
    lock = value_or_refusal(decode_lock, data)
    assert lock is None or decode_lock(encode_lock(lock)) == lock  # type: ignore[arg-type]


def test_a_lock_without_a_time_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="not a time"):
        decode_lock(b'{"exclusive":true}')
    with pytest.raises(IntegrityError, match="exclusive"):
        decode_lock(encode_lock(LOCK).replace(b"false", b"0"))
