"""Documents: equal values are equal bytes, and names are safe, whatever a server sends."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.sources.documents import NoDocument, canonical, document, mark, read

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=5)


@given(VALUES)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    assert json.loads(canonical(value)) == value
    assert canonical(json.loads(canonical(value))) == canonical(value)


@given(OBJECTS)
def test_the_order_of_members_does_not_matter(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@given(st.text(min_size=1) | st.integers(), st.text(min_size=1) | st.integers())
def test_names_are_one_plain_component_and_never_shared(one: str | int, two: str | int) -> None:
    names = [document({"id": each}, ["id"], ()).name for each in (one, two)]
    for name in names:
        assert "/" not in name
        assert "\0" not in name
        assert not name.startswith(".")
        assert len(name.encode()) <= 255
        assert name.isascii()
    assert (names[0] == names[1]) == (str(one) == str(two))


@given(OBJECTS, VALUES)
def test_what_is_ignored_is_stored_and_not_compared(
    value: dict[str, object], stamp: object
) -> None:
    stamped = value | {"updated_at": stamp}
    plain = {key: inner for key, inner in value.items() if key != "updated_at"}
    assert mark(stamped, ["updated_at"]) == mark(plain, ["updated_at"])
    assert json.loads(canonical(stamped))["updated_at"] == stamp


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_said_to_be_none(data: bytes) -> None:
    try:
        found = read("x.json", data, ())
    except NoDocument:
        return
    assert found.value == json.loads(data)


@pytest.mark.parametrize("value", [[], "text", 1, None, {}, {"id": ""}, {"id": True}, {"id": []}])
def test_what_has_no_name_is_no_document(value: object) -> None:
    with pytest.raises(NoDocument):
        document(value, ["id"], ())


def test_numbers_that_json_has_no_word_for_are_refused() -> None:
    with pytest.raises(NoDocument):
        canonical({"id": "x", "value": float("inf")})
