"""Every decoder, with anything, with damaged documents, and with members exchanged: hypothesis."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.kept import KEPT_SEEDS
from tests.fuzz.seeds import SEEDS as DOCUMENTS
from tests.fuzz.targets import TARGETS, try_target

ODD: list[Any] = [
    None,
    True,
    -1,
    1 << 62,
    1 << 70,
    1.5,
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
    "../x",
]
NESTED = b"[" * 100_000
SEEDS = DOCUMENTS | KEPT_SEEDS
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def test_every_decoder_has_a_document_to_begin_from() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_a_whole_document_is_decoded_or_refused(name: str) -> None:
    for seed in SEEDS[name]:
        try_target(name, seed)


@pytest.mark.parametrize("name", TARGETS)
@quick
@given(data=st.data())
def test_any_bytes_are_decoded_or_refused(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS[name]))
    match data.draw(st.integers(0, 3)):
        case 0:
            try_target(name, data.draw(st.binary(max_size=200)))
        case 1:  # a piece replaced
            start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(seed))] * 2)))
            try_target(name, seed[:start] + data.draw(st.binary(max_size=9)) + seed[end:])
        case 2:  # a bit flipped
            at = data.draw(st.integers(0, len(seed) - 1))
            flipped = seed[at] ^ 1 << data.draw(st.integers(0, 7))
            try_target(name, seed[:at] + bytes([flipped]) + seed[at + 1 :])
        case _:
            try_target(name, exchanged(seed, data))


def exchanged(seed: bytes, data: st.DataObject) -> bytes:
    """Exchange one member for something odd, in one line of JSON."""
    lines = seed.split(b"\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    try:
        document = json.loads(lines[at] if len(lines) < 5 else seed)
    except ValueError:
        return seed
    place = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(st.sampled_from(ODD))
            break
        place = place[key]
    lines[at : at + 1] = [json.dumps(document).encode()]
    return b"\n".join(lines) if len(lines) < 5 else json.dumps(document).encode()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_nested_without_end_is_refused(name: str) -> None:
    for seed in (NESTED, b'{"a":' * 100_000, b"a = " + NESTED, SEEDS[name][0] + b"\n" + NESTED):
        try_target(name, seed)
