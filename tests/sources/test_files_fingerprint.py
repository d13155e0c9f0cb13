import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_backup.sources import files
from tests.sources.collecting import collect, files_at

SECOND = 10**9


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the tree as if from a minute later: times of change cannot be set back."""
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 60 * SECOND)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.yaml").write_text("a: 1")
    (root / "sub/b.yaml").write_text("b: 1")
    (root / "link").symlink_to("a.yaml")
    (root / "other.txt").write_text("not asked for")
    for path in (root / "a.yaml", root / "sub/b.yaml"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def rewrite_with_the_same_size_and_time(root: Path) -> None:
    before = (root / "a.yaml").stat()
    (root / "a.yaml").write_text("a: 2")
    os.utime(root / "a.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))


def relink(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("b.yaml")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "sub/b.yaml").write_text("b: 22"),
    "same size and time": rewrite_with_the_same_size_and_time,
    "mode": lambda root: (root / "a.yaml").chmod(0o600),
    "directory mode": lambda root: (root / "sub").chmod(0o700),
    "new file": lambda root: (root / "sub/c.yaml").write_text(""),
    "removed": lambda root: (root / "sub/b.yaml").unlink(),
    "renamed": lambda root: (root / "a.yaml").rename(root / "z.yaml"),
    "link": relink,
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_changes_the_fingerprint(root: Path, change: Callable[[Path], object]) -> None:
    spec = files_at(root, "**/*.yaml", "sub", "link")
    before = files.fingerprint(spec)
    assert before
    assert before == files.fingerprint(spec)
    change(root)
    assert files.fingerprint(spec) != before


@pytest.mark.usefixtures("settled")
def test_what_is_not_asked_for_does_not_change_it(root: Path) -> None:
    spec = files_at(root, "**/*.yaml")
    before = files.fingerprint(spec)
    (root / "other.txt").write_text("changed")
    (root / "sub/new.txt").write_text("new")
    assert files.fingerprint(spec) == before
    assert files.fingerprint(files_at(root, "**/*.yaml", exclude=("x",))) != before


@pytest.mark.usefixtures("settled")
def test_a_capture_reports_the_fingerprint_of_what_it_set_out_to_read(root: Path) -> None:
    spec = files_at(root, "**/*.yaml")
    before = files.fingerprint(spec)
    collected = collect(lambda sink: files.capture(spec, sink, root))
    assert collected.evidence.fingerprint == before


def test_nothing_is_known_of_what_changed_just_now(root: Path) -> None:
    assert files.fingerprint(files_at(root, "a.yaml")) == ""
    assert files.fingerprint(files_at(root, "none")) != ""
