import io
from pathlib import Path

import pytest
from blake3 import blake3

from mcp_backup.sources import digest

SIZES = [0, 1, digest.SEGMENT - 1, digest.SEGMENT, digest.SEGMENT + 1, 40 * digest.SEGMENT + 7]


@pytest.mark.parametrize("size", SIZES)
def test_the_digest_of_a_file_is_that_of_its_segments_in_order(tmp_path: Path, size: int) -> None:
    content = bytes(i * 31 & 0xFF for i in range(251)) * (size // 251 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    expected = blake3(
        b"".join(blake3(content[:size][i : i + 65536]).digest() for i in range(0, size, 65536))
    )
    assert digest.of_path(tmp_path / "file") == f"segments:{expected.hexdigest()}"
    assert digest.of_segments(digest.segments(content[:size])) == f"segments:{expected.hexdigest()}"


def test_short_reads_do_not_move_the_segments(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024
    (tmp_path / "file").write_bytes(content)

    class Dribble(io.FileIO):
        def readinto(self, buffer: object) -> int:
            return super().readinto(memoryview(buffer)[:1000])  # type: ignore[arg-type]

    with Dribble(tmp_path / "file") as file:
        assert digest.of_file(file) == digest.of_segments(digest.segments(content))
