import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcp_backup.errors import SettingsInvalid, SourceMissing, SourceUnreadable
from mcp_backup.sources import digest, files
from mcp_backup.sources.source import SourceSpec
from mcp_backup.sources.steady import Patience
from tests.sources.collecting import Collected, collect, files_at
from tests.sources.trees import unprivileged

Tree = Callable[..., Path]
LONG_AGO = 1_700_000_000


@pytest.fixture
def tree() -> Iterator[Tree]:
    """Make files of the given contents, quiet for years, where others may look too."""
    outer = Path(tempfile.mkdtemp())
    outer.chmod(0o755)

    def make(**content: str | bytes) -> Path:
        root = outer / "root"
        root.mkdir(exist_ok=True)
        for name, value in content.items():
            write(root / name, value)
        return root

    yield make
    shutil.rmtree(outer)


def write(path: Path, value: str | bytes = "x\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value.encode() if isinstance(value, str) else value)
    os.utime(path, (LONG_AGO, LONG_AGO))


def taken(spec: SourceSpec, tmp_path: Path) -> Collected:
    return collect(lambda sink: files.capture(spec, sink, tmp_path))


def test_what_the_patterns_mean_is_captured_and_nothing_else(tree: Tree, tmp_path: Path) -> None:
    root = tree(**{
        ".env": "TOKEN=1\n",
        ".mcp.json": "{}",
        "pyproject.toml": "",
        "main.py": "",
        "settings/a.yaml": "a: 1\n",
        "settings/b.txt": "",
        "settings/deep/c.yaml": "c: 1\n",
        "docs/x/y/z.md": "",
        "docs/x/skip.md": "",
        "data/one/two.bin": "",
    })  # fmt: skip
    spec = files_at(
        root,
        ".env",
        "settings/*.yaml",
        ".mcp.json",
        "pyproject.toml",
        "docs/**/*.md",
        "data",
        exclude=("**/skip.md",),
    )
    collected = taken(spec, tmp_path)
    assert collected.paths == [
        ".env",
        ".mcp.json",
        "data",
        "data/one",
        "data/one/two.bin",
        "docs",
        "docs/x",
        "docs/x/y",
        "docs/x/y/z.md",
        "pyproject.toml",
        "settings",
        "settings/a.yaml",
    ]
    assert collected.content["settings/a.yaml"] == b"a: 1\n"
    assert collected.evidence.facts["files"] == 6
    assert collected.evidence.facts["dirs"] == 6
    assert collected.evidence.notes == ()


def test_the_evidence_holds_the_digest_of_what_was_read(tree: Tree, tmp_path: Path) -> None:
    content = os.urandom(3 << 20) + b"tail"
    root = tree(big=content, empty="")
    collected = taken(files_at(root, "*"), tmp_path)
    assert collected.content["big"] == content
    by_path = {seen.path: seen for seen in collected.evidence.files}
    assert by_path["big"].digest == digest.of_path(root / "big") == collected.digests["big"]
    assert by_path["big"].original == str(root / "big")
    assert (by_path["empty"].size, collected.content["empty"]) == (0, b"")


def test_a_file_too_large_to_be_read_whole_is_streamed(tree: Tree, tmp_path: Path) -> None:
    content = bytes(range(256)) * (5 << 12)
    root = tree(large=content)
    collected = taken(files_at(root, "large"), tmp_path)
    assert collected.content["large"] == content
    assert collected.evidence.notes == ()


def test_modes_owners_and_times_are_captured(tree: Tree, tmp_path: Path) -> None:
    root = tree(**{"bin/tool": "#!/bin/sh\n"})
    (root / "bin/tool").chmod(0o4751)
    (root / "bin").chmod(0o2770)
    collected = taken(files_at(root, "**"), tmp_path)
    tool = collected.entry("bin/tool")
    assert (tool.mode, tool.mtime_ns) == (0o4751, LONG_AGO * 10**9)
    assert (tool.uid, tool.gid) == (os.getuid(), os.getgid())
    assert collected.entry("bin").mode == 0o2770
    assert collected.evidence.facts["entries"]["bin/tool"][:2] == ["file", "4751"]


def test_links_are_stored_as_links_and_never_followed(tree: Tree, tmp_path: Path) -> None:
    root = tree(**{"real/a.yaml": "a"})
    outside = root.parent / "outside"
    write(outside / "secret.yaml", "no")
    (root / "linked").symlink_to(outside)
    (root / "inner").symlink_to("real")
    (root / "loop").symlink_to("loop")
    (root / "real/up").symlink_to("..")
    (root / "secret.yaml").symlink_to("../outside/secret.yaml")
    collected = taken(files_at(root, "**", "linked/*.yaml"), tmp_path)
    assert collected.paths == [
        "inner",
        "linked",
        "loop",
        "real",
        "real/a.yaml",
        "real/up",
        "secret.yaml",
    ]
    assert collected.entry("loop").link_target == "loop"
    assert set(collected.content) == {"real/a.yaml"}
    assert collected.evidence.notes == (
        "pattern 'linked/*.yaml' matched nothing: linked is a link, and links are not followed",
        "linked: a link to outside the root; stored as a link only",
        "secret.yaml: a link to outside the root; stored as a link only",
    )


def test_a_directory_swapped_for_a_link_during_the_capture_is_not_followed(
    tree: Tree, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    write(outside / "b", "secret")
    root = tree(**{"a/b": "mine"})
    os.utime(root / "a/b")  # young, so the capture waits between its walk and its reading

    def swap(_seconds: float) -> None:
        (root / "a").rename(tmp_path / "away")
        (root / "a").symlink_to(outside)

    collected = collect(
        lambda sink: files.captured_with(files_at(root, "**"), sink, Patience(sleep=swap))
    )
    assert collected.content == {}
    assert "a/b: gone or replaced before it was read; not stored" in collected.evidence.notes


def test_a_file_swapped_for_a_link_during_the_capture_is_not_followed(
    tree: Tree, tmp_path: Path
) -> None:
    root = tree(a="mine")
    write(root.parent / "secret", "secret")
    os.utime(root / "a")

    def swap(_seconds: float) -> None:
        (root / "a").unlink()
        (root / "a").symlink_to("../secret")

    collected = collect(
        lambda sink: files.captured_with(files_at(root, "**"), sink, Patience(sleep=swap))
    )
    assert collected.content == {}
    assert collected.evidence.notes == ("a: gone or replaced before it was read; not stored",)


def test_sockets_and_pipes_are_passed_over_and_said(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(kept="x")
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("talk.sock")
        collected = taken(files_at(root, "**"), tmp_path)
    assert collected.paths == ["kept"]
    assert collected.evidence.notes == (
        "talk.sock: a socket; not stored",
        "pipe: a named pipe; not stored",
    )


def test_names_that_are_not_utf8_survive(tree: Tree, tmp_path: Path) -> None:
    root = tree()
    raw = os.fsencode(root) + b"/caf\xe9"
    with open(raw, "wb") as file:
        file.write(b"latin")
    os.utime(raw, (LONG_AGO, LONG_AGO))
    collected = taken(files_at(root, "caf*"), tmp_path)
    assert [os.fsencode(path) for path in collected.paths] == [b"caf\xe9"]
    assert collected.content == {os.fsdecode(b"caf\xe9"): b"latin"}
    json.dumps(collected.evidence.facts)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="none does not exist"):
        taken(files_at(tmp_path / "none", "*"), tmp_path)
    assert files.fingerprint(files_at(tmp_path / "none", "*")) == ""


def test_a_root_that_is_a_file_is_refused(tree: Tree, tmp_path: Path) -> None:
    root = tree(a="x")
    with pytest.raises(SourceUnreadable, match="not a directory"):
        taken(files_at(root / "a", "*"), tmp_path)


@pytest.mark.parametrize("pattern", ["../x", "/etc/passwd", "", "a/../../b", "."])
def test_a_pattern_that_leaves_the_root_is_refused(
    tree: Tree, tmp_path: Path, pattern: str
) -> None:
    with pytest.raises(SettingsInvalid, match="does not name anything under its root"):
        taken(files_at(tree(a="x"), pattern), tmp_path)


def test_a_pattern_that_matches_nothing_is_said(tree: Tree, tmp_path: Path) -> None:
    collected = taken(files_at(tree(a="x"), "a", "settings/*.yaml"), tmp_path)
    assert collected.evidence.notes == ("pattern 'settings/*.yaml' matched nothing",)


def test_a_file_that_matches_and_cannot_be_read_fails_the_source(
    tree: Tree, tmp_path: Path
) -> None:
    root = tree(**{"ok": "x", "locked/key": "hunter2"})
    (root / "locked/key").chmod(0)
    with unprivileged(), pytest.raises(SourceUnreadable) as failure:
        taken(files_at(root, "**"), tmp_path)
    assert f"{root}/locked/key: permission denied" in str(failure.value)
    assert "hunter2" not in f"{failure.value} {failure.value.hint}"


def test_a_directory_that_may_hold_matches_and_cannot_be_listed_fails_the_source(
    tree: Tree, tmp_path: Path
) -> None:
    root = tree(**{"ok": "x", "locked/key": "hunter2"})
    (root / "locked").chmod(0)
    with unprivileged():
        with pytest.raises(SourceUnreadable, match="root/locked: permission denied"):
            taken(files_at(root, "**"), tmp_path)
        assert taken(files_at(root, "*"), tmp_path).paths == ["ok"]
    (root / "locked").chmod(0o700)
