import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.ids import digest, is_id, short, unhex


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(identity: bytes) -> None:
    assert unhex(identity.hex()) == identity
    assert identity.hex().startswith(short(identity))


@given(st.text(max_size=70) | st.integers() | st.none())
def test_any_other_text_is_an_integrity_error(text: object) -> None:
    with pytest.raises(IntegrityError):
        unhex(text)


def test_only_64_lower_case_digits_are_an_id() -> None:
    assert is_id("0123456789abcdef" * 4)
    for name in ("AB" * 32, "ab" * 31, "ab" * 33, "ab" * 32 + "\n", "ab" * 32 + "-tmp-1", "config"):
        assert not is_id(name)


def test_the_digest_is_sha_256() -> None:
    assert digest(b"").hex().startswith("e3b0c44298fc1c14")
