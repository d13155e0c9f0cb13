import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_backup.sources import files
from mcp_backup.sources.source import Evidence
from tests.sources.collecting import collect, files_at
from tests.sources.trees import Shape, make

SHAPE: Shape = {"a.yaml": ("a: 1", 0o640), "sub/b": "b", "empty": "", "link": "@a.yaml"}


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    root = make(tmp_path / "root", SHAPE)
    return collect(lambda sink: files.capture(files_at(root, "**"), sink, tmp_path)).evidence


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return make(tmp_path / "staged", SHAPE)


def test_an_exact_copy_has_no_findings(staged: Path, evidence: Evidence) -> None:
    assert files.examine(staged, evidence) == []


def relink(staged: Path) -> None:
    (staged / "link").unlink()
    (staged / "link").symlink_to("sub/b")


def turn_into_a_directory(staged: Path) -> None:
    (staged / "empty").unlink()
    (staged / "empty").mkdir()


@pytest.mark.parametrize(
    ("damage", "code", "subject"),
    [
        (lambda staged: (staged / "a.yaml").write_text("a: 2"), "digest", "a.yaml"),
        (lambda staged: (staged / "empty").write_text("x"), "digest", "empty"),
        (lambda staged: (staged / "a.yaml").chmod(0o644), "mode", "a.yaml"),
        (lambda staged: (staged / "sub").chmod(0o700), "mode", "sub"),
        (lambda staged: (staged / "sub/b").unlink(), "missing", "sub/b"),
        (lambda staged: (staged / "new").touch(), "extra", "new"),
        (relink, "link", "link"),
        (turn_into_a_directory, "type", "empty"),
    ],
)
def test_each_difference_is_one_finding(
    staged: Path,
    evidence: Evidence,
    damage: Callable[[Path], object],
    code: str,
    subject: str,
) -> None:
    damage(staged)
    found = files.examine(staged, evidence)
    assert [(finding.code, finding.subject) for finding in found] == [(code, subject)]
    assert "a: 2" not in found[0].message


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have set the owner")
def test_another_owner_is_a_finding(staged: Path, evidence: Evidence) -> None:
    os.chown(staged / "a.yaml", 1234, 1234)
    assert [finding.code for finding in files.examine(staged, evidence)] == ["owner"]


def test_without_evidence_only_what_cannot_be_read_is_found(staged: Path) -> None:
    assert files.examine(staged, None) == []
    shutil.rmtree(staged)
    with pytest.raises(FileNotFoundError):
        files.examine(staged, None)
