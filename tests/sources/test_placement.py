import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from mcp_backup.errors import IntegrityError, RestoreError, StagingRejected
from mcp_backup.sources import files, placement
from mcp_backup.sources.placement import Step
from mcp_backup.sources.source import SourceSpec
from tests.sources.collecting import files_at
from tests.sources.trees import Shape, content, look, make, unprivileged

LIVE: Shape = {
    "same": "same",
    "changed": "live",
    "extra": "only live",
    "private": ("live", 0o600),
    "setuid": ("live", 0o4755),
    "sub/changed": "live",
    "sub/extra": "only live",
    "was-file": "live",
    "was-dir/inner/file": "live",
    "was-dir/link": "@../same",
    "was-link": "@same",
    "to-link": "live",
    "link": "@elsewhere",
    "locked/": ("", 0o750),
}
STAGED: Shape = {
    "same": "same",
    "changed": "backup",
    "private": ("backup", 0o640),
    "setuid": "backup",
    "created": "backup",
    "new/deep/created": "backup",
    "empty/": "",
    "sub/changed": "backup",
    "was-file/now/a": "backup",
    "was-dir": "backup",
    "was-link": "backup",
    "to-link": "@same",
    "link": "@same",
    "locked/": ("", 0o700),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "root", LIVE)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return make(tmp_path / "staged", STAGED)


@pytest.fixture
def spec(root: Path) -> SourceSpec:
    return files_at(root, "**")


def kept(tmp_path: Path) -> Path:
    (tmp_path / "undo").mkdir(exist_ok=True)
    return tmp_path / "undo"


def test_what_is_staged_goes_live_and_the_rest_is_left_alone(
    root: Path, staged: Path, spec: SourceSpec
) -> None:
    before = look(root)
    notes = files.place(spec, staged)
    expected = look(staged) | {name: before[name] for name in ("extra", "sub/extra")}
    assert look(root) == expected
    assert notes == [
        "left alone, being newer than the backup or made elsewhere: extra, sub/extra (2)"
    ]


def test_what_already_agrees_is_not_touched(root: Path, staged: Path, spec: SourceSpec) -> None:
    inode = (root / "same").stat().st_ino
    files.place(spec, staged)
    assert (root / "same").stat().st_ino == inode
    assert placement.steps(staged, root) == []


def test_a_missing_root_is_made(tmp_path: Path, staged: Path) -> None:
    root = tmp_path / "far" / "away"
    files.place(files_at(root, "**"), staged)
    assert content(root) == content(staged)


def test_putting_back_restores_everything_and_removes_what_was_created(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    before = look(root)
    files.keep(spec, kept(tmp_path), staged)
    assert look(root) == before
    files.place(spec, staged)
    assert files.put_back(spec, kept(tmp_path)) == []
    assert look(root) == before
    assert files.put_back(spec, kept(tmp_path)) == []
    assert look(root) == before


def test_only_what_will_change_is_kept(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    copy = files.keep(spec, kept(tmp_path), staged)
    assert (copy.state, copy.size) == ("present", 7 * len("live"))


def test_a_created_root_is_removed_again(tmp_path: Path, staged: Path) -> None:
    spec = files_at(tmp_path / "absent", "**")
    assert files.keep(spec, kept(tmp_path), staged).state == "absent"
    files.place(spec, staged)
    files.put_back(spec, kept(tmp_path))
    assert not (tmp_path / "absent").exists()


def test_a_created_directory_that_is_in_use_by_now_stays_and_is_said(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    files.keep(spec, kept(tmp_path), staged)
    files.place(spec, staged)
    (root / "new/deep/mine").write_text("later")
    assert files.put_back(spec, kept(tmp_path)) == [
        "new/deep: stays, since it holds files that the restore did not put there",
        "new: stays, since it holds files that the restore did not put there",
    ]
    assert (root / "new/deep/mine").read_text() == "later"


def test_a_damaged_undo_point_is_refused_before_anything_is_touched(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    files.keep(spec, kept(tmp_path), staged)
    files.place(spec, staged)
    after = look(root)
    damaged = next(
        path for path in (kept(tmp_path) / "files").iterdir() if path.read_text() == "live"
    )
    damaged.write_text("l1ve")
    with pytest.raises(IntegrityError, match="has changed"):
        files.put_back(spec, kept(tmp_path))
    damaged.unlink()
    with pytest.raises(IntegrityError, match="is gone"):
        files.put_back(spec, kept(tmp_path))
    (kept(tmp_path) / "kept.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"kept\.json"):
        files.put_back(spec, kept(tmp_path))
    assert look(root) == after


def test_every_prefix_of_the_steps_can_be_finished_or_put_back(
    tmp_path: Path, staged: Path
) -> None:
    total = len(placement.steps(staged, make(tmp_path / "counted", LIVE)))
    assert total == 22
    for done in range(0, total + 1, 2):
        root = make(tmp_path / f"root{done}", LIVE)
        spec, undo = files_at(root, "**"), tmp_path / f"undo{done}"
        undo.mkdir()
        before = look(root)
        files.keep(spec, undo, staged)
        for step in placement.steps(staged, root)[:done]:
            placement.do(step, staged, root)
        if done % 4:
            files.place(spec, staged)
            assert placement.steps(staged, root) == []
        files.put_back(spec, undo)
        assert look(root) == before


def test_a_step_done_twice_is_a_step_done_once(root: Path, staged: Path) -> None:
    for step in placement.steps(staged, root):
        placement.do(step, staged, root)
        once = look(root)
        placement.do(step, staged, root)
        assert look(root) == once


def test_modes_are_exact_and_set_id_bits_come_back_with_the_undo(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    files.keep(spec, kept(tmp_path), staged)
    files.place(spec, staged)
    assert (root / "private").stat().st_mode & 0o7777 == 0o640
    assert (root / "locked").stat().st_mode & 0o7777 == 0o700
    files.put_back(spec, kept(tmp_path))
    assert (root / "setuid").stat().st_mode & 0o7777 == 0o4755
    assert (root / "locked").stat().st_mode & 0o7777 == 0o750


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owners_are_set_and_put_back(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    os.chown(root / "setuid", 1234, 1234)
    (root / "setuid").chmod(0o4755)
    os.chown(staged / "changed", 4321, 4321)
    before = look(root)
    files.keep(spec, kept(tmp_path), staged)
    files.place(spec, staged)
    assert (root / "changed").stat().st_uid == 4321
    assert (root / "setuid").stat().st_uid == 0
    files.put_back(spec, kept(tmp_path))
    assert look(root) == before
    assert (root / "setuid").stat().st_mode & 0o7777 == 0o4755


def test_a_live_link_on_the_way_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", {"passwd": "root"})
    root = make(tmp_path / "root", {"etc": f"@{outside}"})
    staged = make(tmp_path / "staged", {"etc/passwd": "mine"})
    spec = files_at(root, "**")
    files.keep(spec, kept(tmp_path), staged)
    files.place(spec, staged)
    assert content(outside) == {"passwd": "root"}
    assert content(root) == {"etc": "/", "etc/passwd": "mine"}
    files.put_back(spec, kept(tmp_path))
    assert content(root) == {"etc": f"@{outside}"}
    assert content(outside) == {"passwd": "root"}


def test_a_directory_that_becomes_a_link_after_the_plan_is_not_written_through(
    tmp_path: Path,
) -> None:
    outside = make(tmp_path / "outside", {"passwd": "root"})
    root = make(tmp_path / "root", {"etc/passwd": "live"})
    staged = make(tmp_path / "staged", {"etc/passwd": "mine"})
    steps = placement.steps(staged, root)
    (root / "etc").rename(tmp_path / "away")
    (root / "etc").symlink_to(outside)
    with pytest.raises(RestoreError, match="became a link"):
        placement.do(steps[0], staged, root)
    assert content(outside) == {"passwd": "root"}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b", ".", "a\0b"])
def test_a_step_that_leads_out_of_the_root_is_refused(
    tmp_path: Path, root: Path, staged: Path, path: str
) -> None:
    with pytest.raises(StagingRejected, match="is not a plain relative path"):
        placement.do(Step("put-file", path, "absent"), staged, root)
    assert not (tmp_path / "x").exists()


def test_a_staged_link_in_place_of_a_directory_is_not_read_through(
    tmp_path: Path, root: Path
) -> None:
    outside = make(tmp_path / "outside", {"secret": "no"})
    staged = make(tmp_path / "staged", {"sub": f"@{outside}"})
    with pytest.raises(RestoreError):
        placement.do(Step("put-file", "sub/secret", "absent"), staged, root)
    assert not (root / "sub/secret").exists()


def test_special_files_in_either_tree_stop_the_placement_before_it_begins(
    tmp_path: Path, root: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(root)
    os.mkfifo(staged / "pipe")
    with pytest.raises(StagingRejected, match="neither file, directory nor link"):
        files.place(files_at(root, "**"), staged)
    (staged / "pipe").unlink()
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("created")
        with pytest.raises(RestoreError, match="created is a socket"):
            files.place(files_at(root, "**"), staged)
    assert {**before, "created": ("special",)} == look(root)


def test_a_staged_name_that_we_use_for_temporary_files_is_refused(root: Path, staged: Path) -> None:
    (staged / ".mcp-backup-0123456789abcdef.new").write_text("x")
    with pytest.raises(StagingRejected, match="kept for our own"):
        files.place(files_at(root, "**"), staged)


def test_names_that_are_not_utf8_go_live_and_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n")
    root = make(tmp_path / "root", {name: "live"})
    staged = make(tmp_path / "staged", {name: "backup"})
    spec = files_at(root, "**")
    files.keep(spec, kept(tmp_path), staged)
    files.place(spec, staged)
    assert (root / name).read_text() == "backup"
    files.put_back(spec, kept(tmp_path))
    assert (root / name).read_text() == "live"


def test_a_planted_link_under_the_temporary_name_is_not_written_through(
    tmp_path: Path, root: Path, staged: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    for name in killed_while_placing("changed", root):
        (root / name).unlink()
        (root / name).symlink_to(victim)
    files.place(files_at(root, "**"), staged)
    assert victim.read_text() == "safe"
    assert not [name for name in content(root) if name.startswith(".mcp-backup-")]


def killed_while_placing(name: str, root: Path) -> list[str]:
    """Leave what a kill between a temporary file and its rename leaves."""
    before = set(os.listdir(root))
    child = os.fork()
    if child == 0:
        os.rename = lambda *_args, **_kwargs: os._exit(0)
        staged = root.parent / "staged"
        placement.do(Step("put-file", name, "file"), staged, root)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    return sorted(set(os.listdir(root)) - before)


@pytest.mark.parametrize("name", ["changed", "was-dir", "was-file", "to-link", "created"])
@pytest.mark.parametrize("call", ["open", "rename", "fsync", "unlink", "rmtree"])
def test_a_kill_at_any_call_leaves_nothing_behind_after_the_next_run(
    tmp_path: Path, name: str, call: str
) -> None:
    staged = make(tmp_path / "staged", only(name, STAGED))
    for occurrence in (1, 2, 3):
        root = make(tmp_path / f"root{occurrence}", only(name, LIVE))
        spec, undo = files_at(root, "**"), tmp_path / f"undo{occurrence}"
        undo.mkdir()
        files.keep(spec, undo, staged)
        before = look(root)
        step = next(step for step in placement.steps(staged, root) if step.path == name)
        killed_at(call, occurrence, step, staged, root)
        if name == "changed":
            assert look(root)[name] in (before[name], look(staged)[name])
        files.place(spec, staged)
        assert placement.steps(staged, root) == []
        assert not [path for path in content(root) if ".mcp-backup-" in path]
        files.put_back(spec, undo)
        assert look(root) == before


@pytest.mark.parametrize("call", ["open", "rename", "fsync", "unlink", "rmtree"])
def test_a_kill_then_putting_back_leaves_everything_as_it_was(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec, call: str
) -> None:
    files.keep(spec, kept(tmp_path), staged)
    before = look(root)
    for step in placement.steps(staged, root):
        killed_at(call, 1, step, staged, root)
    files.put_back(spec, kept(tmp_path))
    assert look(root) == before


def test_a_directory_caught_between_two_renames_is_put_back_by_the_next_run(
    tmp_path: Path, root: Path, staged: Path, spec: SourceSpec
) -> None:
    before = look(root)
    step = next(step for step in placement.steps(staged, root) if step.path == "was-dir")
    killed_at("rename", 3, step, staged, root)
    assert not (root / "was-dir").exists()
    files.keep(spec, kept(tmp_path), staged)
    assert look(root) == before


def test_a_directory_that_may_not_be_written_is_refused_before_anything_is_touched() -> None:
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    root = make(place / "root", {"ours": "live", "theirs/a": "live"})
    staged = make(place / "staged", {"ours": "backup", "theirs/a": "backup"})
    for path in (root, root / "ours"):
        os.chown(path, 65534 if os.getuid() == 0 else -1, -1)
    (root / "theirs").chmod(0o555)
    with unprivileged(), pytest.raises(RestoreError, match="theirs may not be written"):
        files.place(files_at(root, "**"), staged)
    assert content(root) == {"ours": "live", "theirs": "/", "theirs/a": "live"}
    (root / "theirs").chmod(0o755)
    shutil.rmtree(place)


def only(name: str, shape: Shape) -> Shape:
    return {path: value for path, value in shape.items() if path.split("/")[0] == name}


def killed_at(call: str, occurrence: int, step: Step, staged: Path, root: Path) -> None:
    """Take a step in a child that dies at the n-th of the calls, before it is made."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    owner = shutil if call == "rmtree" else os
    real, seen = getattr(owner, call), 0

    def fatal(*args: object, **kwargs: object) -> object:
        nonlocal seen
        seen += 1
        if seen == occurrence:
            os._exit(0)
        return real(*args, **kwargs)

    setattr(owner, call, fatal)
    try:
        placement.do(step, staged, root)
    finally:
        os._exit(1)  # not reached when it died, and in no case a second pytest
