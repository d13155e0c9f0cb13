import json
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from random import Random
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_backup.format.chunking import (
    MAX_CHUNK,
    MIN_CHUNK,
    ContentCutter,
    default_chunk_size,
    fixed,
)

MEBIBYTE = 1 << 20


def cut(data: bytes) -> list[bytes]:
    cutter = ContentCutter()
    return cutter.feed(data) + cutter.finish()


@cache
def noise(size: int) -> bytes:
    return Random(7).randbytes(size)  # noqa: S311


@cache
def lines_of_json(size: int) -> bytes:
    random = Random(7)  # noqa: S311
    lines: list[str] = []
    while size > 0:
        row = {"id": random.getrandbits(40), "note": random.choice(["fox", "dog"]), "n": len(lines)}
        lines.append(json.dumps(row) + "\n")
        size -= len(lines[-1])
    return "".join(lines).encode()


@cache
def digits(size: int) -> bytes:
    random = Random(7)  # noqa: S311
    return b"".join(
        b"%.6f,%d\n" % (random.random(), random.getrandbits(16)) for _ in range(size // 15)
    )


@cache
def hexadecimal(size: int) -> bytes:
    return noise(size // 2).hex().encode()


KINDS = pytest.mark.parametrize("make", [noise, lines_of_json, digits, hexadecimal])


@KINDS
def test_chunks_lie_within_bounds_and_make_up_the_whole(make: Callable[[int], bytes]) -> None:
    data = make(4 * MEBIBYTE)
    chunks = cut(data)
    assert b"".join(chunks) == data
    assert all(MIN_CHUNK <= len(chunk) <= MAX_CHUNK for chunk in chunks[:-1])
    assert 1 <= len(chunks[-1]) <= MAX_CHUNK
    assert len(chunks) > 4 * MEBIBYTE / (160 << 10)  # on average


@KINDS
@pytest.mark.parametrize("edit", [b"", b"x", b"an insertion of some length"])
def test_an_edit_changes_the_chunks_near_it_and_no_others(
    make: Callable[[int], bytes], edit: bytes
) -> None:
    data = make(4 * MEBIBYTE)
    at = MEBIBYTE
    edited = data[:at] + edit + data[at + 5 :]
    before, after = cut(data), cut(edited)
    new = [chunk for chunk in after if chunk not in set(before)]
    assert 1 <= len(new) <= 4
    assert sum(map(len, new)) < MEBIBYTE // 2


MIXED = noise(MEBIBYTE // 2) + bytes(MEBIBYTE + 5) + lines_of_json(MEBIBYTE // 2)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 300_000), max_size=8))
def test_the_cuts_do_not_depend_on_how_the_bytes_were_fed(sizes: list[int]) -> None:
    data = MIXED
    cutter, chunks = ContentCutter(), []
    ends = [end for end in accumulate(sizes) if end < len(data)]
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        chunks += cutter.feed(memoryview(data)[start:end])
    assert chunks + cutter.finish() == cut(data)


def test_a_cut_that_is_fed_in_two_parts_is_found() -> None:
    data = noise(MEBIBYTE)
    whole = cut(data)
    end = len(whole[0])
    for split in range(end - 10, end + 2):
        cutter = ContentCutter()
        assert cutter.feed(data[:split]) + cutter.feed(data[split:]) + cutter.finish() == whole


def test_the_cuts_are_the_same_in_every_version() -> None:
    lengths = [len(chunk) for chunk in cut(hexadecimal(MEBIBYTE // 4))]
    assert lengths == [18989, 26129, 21558, 75137, 23097, 19448, 32670, 21955, 23161]


def test_runs_are_cut_at_the_maximum() -> None:
    for byte in (b"\0", b"a", b"\xff"):
        chunks = cut(byte * (2 * MEBIBYTE + 1))
        assert [len(chunk) for chunk in chunks] == [MAX_CHUNK, MAX_CHUNK, 1]
    run, *others = cut(bytes(MAX_CHUNK + 1) + noise(MEBIBYTE))
    assert len(run) == MAX_CHUNK
    assert all(len(chunk) < MAX_CHUNK for chunk in others)


def test_little_is_one_chunk_and_nothing_is_none() -> None:
    assert cut(b"") == []
    assert cut(b"x") == [b"x"]
    assert cut(noise(MIN_CHUNK)) == [noise(MIN_CHUNK)]


def test_a_cutter_that_finished_begins_again() -> None:
    cutter, data = ContentCutter(), noise(MEBIBYTE)
    first = cutter.feed(data) + cutter.finish()
    assert cutter.feed(data) + cutter.finish() == first == cut(data)
    assert cutter.finish() == []


def test_no_byte_is_looked_at_in_python() -> None:
    data = noise(8 * MEBIBYTE)
    began = process_time()
    cut(data)
    assert process_time() - began < 0.4  # a loop over them takes a second; this, 0.03


@given(st.integers(0, 1 << 40), st.sampled_from([4096, 16384, 65536]))
def test_fixed_cuts_make_up_the_whole(length: int, size: int) -> None:
    length %= 1000 * size
    chunks = fixed(length, size)
    assert sum(chunks) == length
    assert set(chunks[:-1]) <= {size}
    assert all(0 < chunk <= size for chunk in chunks)


@pytest.mark.parametrize(
    ("size", "page_size", "chunk"),
    [
        (0, 0, 16384),
        (1 << 30, 4096, 16384),
        (1 << 32, 4096, 16384),
        ((1 << 32) + 1, 4096, 32768),
        ((1 << 33) + 1, 4096, 65536),
        (1 << 40, 4096, 65536),
        (1 << 20, 65536, 65536),
        (1 << 20, 262144, 262144),
        (1 << 20, 512, 16384),
    ],
)
def test_fixed_cuts_grow_with_the_image_and_hold_whole_pages(
    size: int, page_size: int, chunk: int
) -> None:
    assert default_chunk_size(size, page_size) == chunk
