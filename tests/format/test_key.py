import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.crypto import MasterKey, Sealer
from mcp_backup.format.key import (
    CHEAP,
    STRONG,
    ScryptWork,
    encode_key_file,
    generate_master_key,
    open_key_file,
)
from tests.format.strategies import any_json, damaged, plain_text, tampered, value_or_refusal

WEAK = ScryptWork(2, 1, 1)


def counted(start: int = 1) -> Callable[[int], bytes]:
    """A source of randomness that is none, so that examples repeat."""
    state = [start]

    def random(size: int) -> bytes:
        state[0] += 1
        return (state[0] % 255 + 1).to_bytes(1, "little") * size

    return random


def key_file(master: MasterKey, password: str, work: ScryptWork = WEAK) -> bytes:
    created = datetime(2026, 11, 22, 18, 29, 0, 123456, tzinfo=UTC)
    return encode_key_file(
        master,
        password,
        created=created,
        username="root",
        hostname="vm",
        work=work,
        random=counted(),
    )


MASTER = generate_master_key(lambda size: bytes(range(size)))
FILE = key_file(MASTER, "test")


def test_scrypt_makes_the_published_key() -> None:
    key = ScryptWork(1024, 8, 1).key("test", bytes(range(64)))
    assert key.encrypt.hex().startswith("61e71ad33908cbdb")
    assert key.mac_r.hex().endswith("7c4a6d")


@given(plain_text, plain_text)
def test_round_trip_and_no_other_password_opens(password: str, other: str) -> None:
    data = key_file(MASTER, password)
    assert open_key_file(data, password) == MASTER
    assert other == password or open_key_file(data, other) is None


def test_a_password_that_is_not_utf_8_opens_what_it_made() -> None:
    assert open_key_file(key_file(MASTER, "p\udcff"), "p\udcff") == MASTER


@pytest.mark.parametrize("work", [CHEAP, STRONG])
def test_the_work_we_ask_for_is_work_we_can_do(work: ScryptWork) -> None:
    assert open_key_file(key_file(MASTER, "pässwort", work), "pässwort") == MASTER


def test_members_are_those_of_restic() -> None:
    members = json.loads(FILE)
    assert members.pop("data")
    assert members == {
        "created": "2026-11-22T18:29:00.123456Z",
        "username": "root",
        "hostname": "vm",
        "kdf": "scrypt",
        "N": 2,
        "r": 1,
        "p": 1,
        "salt": b64encode(bytes([3] * 64)).decode(),
    }


def test_a_master_key_is_made_of_64_random_bytes() -> None:
    assert MASTER.encrypt + MASTER.mac_k + MASTER.mac_r == bytes(range(64))


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    assert value_or_refusal(lambda data: open_key_file(data, "test"), data) is None


@settings(max_examples=200)
@given(tampered(FILE) | damaged(FILE))
def test_a_tampered_key_file_gives_the_key_or_nothing(data: bytes) -> None:
    assert value_or_refusal(lambda data: open_key_file(data, "test"), data) in (None, MASTER)


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({"kdf": "argon2"}, UnsupportedFormat),
        ({"kdf": None}, UnsupportedFormat),
        ({"N": 1 << 30, "r": 8}, UnsupportedFormat),
        ({"N": 32768, "r": 8, "p": 1 << 20}, UnsupportedFormat),
        ({"N": 1 << 16, "r": 1}, UnsupportedFormat),
        ({"N": 3}, IntegrityError),
        ({"N": 1}, IntegrityError),
        ({"N": 0}, IntegrityError),
        ({"r": 0}, IntegrityError),
        ({"p": -1}, IntegrityError),
        ({"salt": "AAAA"}, IntegrityError),
        ({"salt": "?"}, IntegrityError),
        ({"data": None}, IntegrityError),
    ],
)
def test_what_cannot_be_opened_says_so_instead_of_trying(
    members: dict[str, object], refusal: type[Exception]
) -> None:
    document = {**json.loads(FILE), **members}
    with pytest.raises(refusal, match="key file"):
        open_key_file(json.dumps(document).encode(), "test")


@pytest.mark.parametrize(
    "plaintext",
    [
        b"{}",
        b'{"mac":[],"encrypt":"AAAA"}',
        b'{"mac":{"k":"AAAA","r":"AAAA"},"encrypt":"AAAA"}',
        b"not JSON",
    ],
)
def test_a_master_key_that_is_none_is_an_integrity_error(plaintext: bytes) -> None:
    document = json.loads(FILE)
    user = WEAK.key("test", bytes([3] * 64))
    document["data"] = b64encode(Sealer(user).seal(plaintext)).decode()
    with pytest.raises(IntegrityError, match="master key"):
        open_key_file(json.dumps(document).encode(), "test")
