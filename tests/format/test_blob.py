import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.blob import BlobKind, Compressor, Decompressor, compress
from mcp_backup.format.zstd import ZstdCompressor, frame_content_size, inflate, stream_compressor
from tests.format.strategies import damaged, value_or_refusal

TEXT = b"the same words again, " * 400
FRAME = Compressor().frame(TEXT)
MEBIBYTE = 1 << 20


@given(st.binary(max_size=500), st.integers(1, 50), st.sampled_from([1, 3, 19]))
def test_round_trip(piece: bytes, times: int, level: int) -> None:
    plaintext = piece * times
    frame = compress(plaintext, level)
    if frame is None:
        assert len(Compressor(level).frame(plaintext or b"x")) >= len(plaintext)
    else:
        assert len(frame) < len(plaintext)
        assert Decompressor().decompress(frame, len(plaintext)) == plaintext


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
def test_one_compressor_makes_independent_frames(blobs: list[bytes]) -> None:
    compressor, decompressor = Compressor(), Decompressor()
    frames = [compressor.frame(blob) for blob in blobs]
    for blob, frame in reversed(list(zip(blobs, frames, strict=True))):
        assert frame_content_size(frame) == len(blob)
        assert decompressor.decompress(memoryview(frame), len(blob)) == blob


def test_noise_and_nothing_are_not_compressed() -> None:
    assert compress(os.urandom(16384)) is None
    assert compress(b"") is None
    with pytest.raises(ValueError, match="empty"):
        Compressor().frame(b"")


@given(st.binary(max_size=100), st.integers(0, 10_000))
def test_any_other_bytes_are_a_blob_of_that_length_or_an_integrity_error(
    data: bytes, length: int
) -> None:
    blob = value_or_refusal(lambda data: Decompressor().decompress(data, length), data)
    assert blob is None or (isinstance(blob, bytes) and len(blob) == length)


@given(damaged(FRAME))
def test_a_damaged_frame_is_a_blob_of_that_length_or_an_integrity_error(data: bytes) -> None:
    blob = value_or_refusal(lambda data: Decompressor().decompress(data, len(TEXT)), data)
    assert blob is None or (isinstance(blob, bytes) and len(blob) == len(TEXT))


@pytest.mark.parametrize("length", [0, 1, len(TEXT) - 1, len(TEXT) + 1, 1 << 32])
def test_another_length_than_promised_is_an_integrity_error(length: int) -> None:
    with pytest.raises(IntegrityError):
        Decompressor().decompress(FRAME, length)


def test_a_bomb_goes_off_within_what_was_promised() -> None:
    compressor = stream_compressor(1)
    bomb = b"".join(compressor.compress(bytes(MEBIBYTE)) for _ in range(256)) + compressor.flush()
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="more than the 16384 bytes"):
        Decompressor().decompress(bomb, 16384)
    with pytest.raises(IntegrityError, match="more than the"):
        inflate(bomb, MEBIBYTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MEBIBYTE


def test_frames_without_size_with_checksum_and_in_a_row_are_read() -> None:
    for sized, checked in ((False, False), (True, True), (False, True)):
        compressor = ZstdCompressor(write_content_size=sized, write_checksum=checked)
        assert inflate(compressor.compress(TEXT), len(TEXT)) == TEXT
        frames = compressor.compress(TEXT) + FRAME + compressor.compress(b"") + FRAME
        assert inflate(frames, 3 * len(TEXT)) == 3 * TEXT
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    assert inflate(FRAME + skippable + FRAME, 2 * len(TEXT)) == TEXT + TEXT
    with pytest.raises(IntegrityError):
        inflate(FRAME + FRAME, 2 * len(TEXT) - 1)
    with pytest.raises(IntegrityError):
        inflate(FRAME + FRAME[:-1], 2 * len(TEXT))


def test_a_frame_cut_short_anywhere_is_an_integrity_error() -> None:
    unsized = ZstdCompressor(write_content_size=False, write_checksum=True).compress(TEXT)
    for frame in (FRAME, FRAME + FRAME, unsized):
        for end in range(len(frame)):
            if end != len(FRAME):
                with pytest.raises(IntegrityError):
                    inflate(frame[:end], MEBIBYTE)


def test_endless_empty_frames_are_refused_early() -> None:
    with pytest.raises(IntegrityError, match="frames where one is usual"):
        inflate(Compressor().frame(b"x") * 200_000, 1 << 30)


def test_kinds_have_the_words_of_index_files() -> None:
    assert [kind.word for kind in BlobKind] == ["data", "tree"]
