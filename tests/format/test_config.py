import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.config import (
    Config,
    decode_config,
    encode_config,
    is_irreducible,
    new_config,
    random_polynomial,
)
from tests.format.strategies import any_json, tampered, value_or_refusal

CONFIG = Config(2, "ab" * 32, 0x25B468838DCB75)


def _product(one: int, other: int) -> int:
    result = 0
    while other:
        result ^= one * (other & 1)
        one, other = one << 1, other >> 1
    return result


REDUCIBLE = {_product(one, other) for one in range(2, 64) for other in range(2, 64)}


def test_irreducible_is_what_is_no_product() -> None:
    for polynomial in range(2, 64):
        assert is_irreducible(polynomial) == (polynomial not in REDUCIBLE), bin(polynomial)
    assert not is_irreducible(0)
    assert not is_irreducible(1)


@given(st.integers(2, (1 << 27) - 1), st.integers(2, (1 << 27) - 1))
def test_a_product_is_reducible(one: int, other: int) -> None:
    assert not is_irreducible(_product(one, other))


@pytest.mark.parametrize("polynomial", [0x3DA3358B4DC173, 0x25B468838DCB75])
def test_polynomials_of_restic_are_irreducible_and_their_neighbours_are_not(
    polynomial: int,
) -> None:
    assert is_irreducible(polynomial)
    assert not is_irreducible(polynomial ^ 1)
    assert not is_irreducible(polynomial << 1)


def test_what_we_draw_is_irreducible_of_degree_53_and_different() -> None:
    random = Random(1)  # noqa: S311
    drawn = [random_polynomial(random.randbytes) for _ in range(20)]
    assert len(set(drawn)) == 20
    for polynomial in drawn:
        assert polynomial.bit_length() == 54
        assert is_irreducible(polynomial)
        assert decode_config(encode_config(Config(2, "00" * 32, polynomial)))


@given(st.integers(1, 2), st.binary(min_size=32, max_size=32))
def test_round_trip(version: int, identity: bytes) -> None:
    config = Config(version, identity.hex(), CONFIG.chunker_polynomial)
    assert decode_config(encode_config(config)) == config


def test_members_are_those_of_restic() -> None:
    assert encode_config(CONFIG).decode() == (
        '{"version":2,"id":"' + "ab" * 32 + '","chunker_polynomial":"25b468838dcb75"}'
    )
    made = new_config(Random(1).randbytes)  # noqa: S311
    assert decode_config(encode_config(made)) == made
    assert made.version == 2


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_a_config_or_refused(data: bytes) -> None:
    value_or_refusal(decode_config, data)


@given(tampered(encode_config(CONFIG)))
def test_a_tampered_config_is_a_config_or_refused(data: bytes) -> None:
    config = value_or_refusal(decode_config, data)
    assert config is None or decode_config(encode_config(config)) == config  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({"version": 3}, UnsupportedFormat),
        ({"version": 0}, UnsupportedFormat),
        ({"version": "2"}, IntegrityError),
        ({"id": "ab"}, IntegrityError),
        ({"chunker_polynomial": "25b468838dcb74"}, IntegrityError),
        ({"chunker_polynomial": ""}, IntegrityError),
        ({"chunker_polynomial": "0x3"}, IntegrityError),
        ({"chunker_polynomial": "f" * 10_000}, IntegrityError),
    ],
)
def test_a_config_that_restic_refuses_is_refused(
    members: dict[str, object], refusal: type[Exception]
) -> None:
    document = {**json.loads(encode_config(CONFIG)), **members}
    with pytest.raises(refusal):
        decode_config(json.dumps(document).encode())
