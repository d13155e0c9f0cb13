import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_backup.sources import files
from mcp_backup.sources.steady import Patience, parses
from tests.sources.collecting import Collected, collect, files_at

WHOLE = '{"rows": [1, 2, 3]}'
TORN = '{"rows": [1, 2'


class Clock:
    """Time that passes only in sleep, and a writer that works meanwhile."""

    def __init__(self, writer: Callable[[float], None] = lambda _now: None) -> None:
        self.now = time.time()
        self.slept: list[float] = []
        self._writer = writer

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        self._writer(self.now)

    def capture(self, root: Path) -> Collected:
        patience = Patience(now=lambda: self.now, sleep=self.sleep)
        return collect(lambda sink: files.captured_with(files_at(root, "*"), sink, patience))


def put(path: Path, text: str, at: float) -> None:
    path.write_text(text)
    os.utime(path, (at, at))


def test_a_file_half_written_when_it_is_reached_is_read_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    clock = Clock(lambda now: put(path, WHOLE, now - 2) if path.read_text() == TORN else None)
    put(path, TORN, clock.now)
    collected = clock.capture(tmp_path)
    assert collected.content["state.json"].decode() == WHOLE
    assert collected.evidence.notes == ()


def test_a_quiet_file_costs_no_waiting(tmp_path: Path) -> None:
    clock = Clock()
    put(tmp_path / "quiet.json", WHOLE, clock.now - 3)
    put(tmp_path / "from-the-future.json", WHOLE, clock.now + 10**6)
    clock.capture(tmp_path)
    assert clock.slept == []


def test_any_number_of_young_files_are_waited_for_once(tmp_path: Path) -> None:
    clock = Clock()
    for number in range(50):
        put(tmp_path / f"{number}.json", WHOLE, clock.now - number / 50)
    collected = clock.capture(tmp_path)
    assert len(clock.slept) == 1
    assert 1.9 < clock.slept[0] < 2.1
    assert collected.evidence.notes == ()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.txt", "line", "was still being written"),
        ("a.json", WHOLE, "was still being written; as stored it is well-formed"),
        ("a.toml", "[half", "was still being written; as stored it is not well-formed"),
    ],
)
def test_a_file_that_never_holds_still_is_stored_and_said_to_be_unstable(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    path = tmp_path / name
    clock = Clock(lambda now: put(path, text, now))
    put(path, text, clock.now)
    collected = clock.capture(tmp_path)
    assert collected.content[name].decode() == text
    assert collected.evidence.notes == (f"unstable: {name} {said}",)
    assert sum(clock.slept) <= 6.1


def test_a_whole_reading_is_preferred_to_a_later_half_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    versions = iter([WHOLE, TORN, TORN, TORN, TORN])
    clock = Clock(lambda now: put(path, next(versions), now))
    put(path, TORN, clock.now)
    assert clock.capture(tmp_path).content["a.json"].decode() == WHOLE


@pytest.mark.parametrize("size", [10, 5 << 20])
def test_a_file_written_while_it_is_read_is_told_although_its_time_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "busy.txt"
    clock = Clock()
    put(path, "a" * size, clock.now - 60)
    real = os.read

    def read(descriptor: int, length: int) -> bytes:
        piece = real(descriptor, length)
        with path.open("r+b") as file:
            file.write(b"b")
        os.utime(path, (clock.now - 60, clock.now - 60))
        return piece

    monkeypatch.setattr(os, "read", read)
    seen = clock.capture(tmp_path).evidence
    assert seen.notes == ("unstable: busy.txt changed while it was read",)


def test_a_file_that_is_always_replaced_by_rename_is_whole(tmp_path: Path) -> None:
    path, fresh = tmp_path / "a.json", tmp_path / "fresh"

    def replace(now: float) -> None:
        put(fresh, WHOLE, now)
        fresh.rename(path)

    clock = Clock(replace)
    replace(clock.now)
    collected = clock.capture(tmp_path)
    assert collected.content["a.json"].decode() == WHOLE
    assert collected.evidence.notes == ()


@pytest.mark.parametrize(
    ("name", "content", "verdict"),
    [
        ("a.json", b"{}", True),
        ("a.json", b"", False),
        ("a.json", b'{"a": ', False),
        ("a.json", b"[" * 100_000, False),
        ("a.toml", b"a = 1", True),
        ("a.toml", b"\n", False),
        ("a.yaml", b"a: 1", None),
        ("a.yaml", b"a: \0\0\0", False),
        (".env", b"", None),
    ],
)
def test_only_what_can_be_told_is_told(name: str, content: bytes, verdict: bool | None) -> None:
    assert parses(name, content) is verdict
