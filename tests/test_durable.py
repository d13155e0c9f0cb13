import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mcp_backup import durable

STEPS = {"open", "write", "fchmod", "fsync", "link", "replace", "unlink", "rename", "mkdir"}


def steps_of(call: Callable[[], object]) -> list[str]:
    """Run `call` and return which system calls it made, of those that matter, in order."""
    steps: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__module__ == "posix" and argument.__name__ in STEPS:
            steps.append(argument.__name__)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return steps


def test_bytes_are_on_the_disk_before_their_name_and_the_name_before_success(
    tmp_path: Path,
) -> None:
    made = ["open", "write", "fchmod", "fsync"]
    directory = ["open", "fsync"]
    path = tmp_path / "file"
    created = steps_of(lambda: durable.create_durably(path, b"new"))
    assert created == [*made, "link", *directory, "unlink"]
    written = steps_of(lambda: durable.write_durably(path, b"newer"))
    assert written == [*made, "replace", *directory, "unlink"]
    linked = steps_of(lambda: durable.link_durably(path, tmp_path / "second"))
    assert linked == ["link", *directory]
    replaced = steps_of(lambda: durable.replace_durably(tmp_path / "second", path))
    assert replaced == ["replace", *directory]
    removed = steps_of(lambda: durable.remove_durably(path))
    assert removed == ["unlink", *directory]
    made_directory = steps_of(lambda: durable.make_directory_durably(tmp_path / "a" / "b"))
    assert made_directory == ["mkdir", *directory] * 2


def test_a_rename_across_directories_makes_both_durable(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    steps = steps_of(lambda: durable.replace_durably(tmp_path / "file", tmp_path / "to" / "file"))
    assert steps == ["replace", "open", "fsync", "open", "fsync"]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        durable.write_durably(tmp_path / "written", b"x", mode)
        durable.create_durably(tmp_path / "created", b"x", mode)
    finally:
        os.umask(before)
    for name in ("written", "created"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_creating_what_exists_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    durable.create_durably(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        durable.create_durably(tmp_path / "file", b"second")
    with pytest.raises(FileExistsError):
        durable.link_durably(tmp_path / "file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_writing_replaces_the_whole_file_and_keeps_other_links_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old and long")
    os.link(tmp_path / "file", tmp_path / "undo")
    durable.write_durably(tmp_path / "file", memoryview(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "undo").read_bytes() == b"old and long"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    program = (
        "import resource, sys, pathlib; from mcp_backup import durable;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "durable.write_durably(pathlib.Path(sys.argv[1]), bytes(8192))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "file"], capture_output=True, text=True
    )
    assert "File too large" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_removing_what_is_not_there_succeeds(tmp_path: Path) -> None:
    durable.remove_durably(tmp_path / "never")
    durable.remove_durably(tmp_path / "never" / "either")


def test_a_directory_is_made_private_and_a_file_in_its_place_is_not_touched(
    tmp_path: Path,
) -> None:
    durable.make_directory_durably(tmp_path / "a" / "b")
    durable.make_directory_durably(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileExistsError):
            durable.make_directory_durably(path)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_temporary_name_tells_what_the_file_was_to_be_called() -> None:
    temporary = durable.temporary_name("a-tmp-b")
    assert temporary != durable.temporary_name("a-tmp-b")
    assert durable.final_name(temporary) == "a-tmp-b"
    for other in ("a", "a-tmp-123", "a-tmp-0123456789ABCDEF", "-tmp-0123456789abcdef"):
        assert durable.final_name(other) is None
