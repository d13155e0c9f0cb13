"""forget and prune at a terminal: shown first, asked for, and out of any agent's reach."""

import os
from pathlib import Path

import pytest

from mcp_backup.server.tools import backup_tools
from tests.test_cli import Run, typed
from tests.test_cli import begun as begun
from tests.test_cli import project as project
from tests.test_cli import run as run

ONE_DAY = "\n[retention]\ndaily = 1\nweekly = 0\nmonthly = 0\nminimum = 0\n"


@pytest.fixture
def twice(begun: Run, project: Path) -> Run:
    """Two backups of one day, of which retention keeps one."""
    settings = project / "mcp-backup.toml"
    text = settings.read_text()
    assert "[retention]" not in text
    settings.write_text(text + ONE_DAY)
    os.utime(project / ".env", (1_700_000_000, 1_700_000_000))  # so that nobody waits for it
    for _ in range(2):
        assert begun("create", "--backup-type", "config", "--no-verify").code == 0
    return begun


def backups(run: Run) -> list[str]:
    return [each["backup_id"] for each in run("list", "--json").answer["backups"]]


def test_a_dry_run_shows_what_would_go_and_why_the_rest_stays(twice: Run) -> None:
    newest, oldest = backups(twice)
    ran = twice("forget", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("to drop 1 backup, kept 1: 1 daily, 0 weekly, 0 monthly by this")
    assert f"{newest}  " in ran.out
    assert "latest; daily 1/1" in ran.out
    assert oldest in ran.out.split("TO DROP")[1]
    assert backups(twice) == [newest, oldest]


def test_without_a_person_nothing_is_dropped_and_the_plan_is_shown(twice: Run) -> None:
    before = backups(twice)
    ran = twice("forget", "--json")
    assert ran.code == 5
    assert [each["backup_id"] for each in ran.answer["forgotten"]] == before[1:]
    assert '"code": "approval-required"' in ran.err
    assert backups(twice) == before


def test_with_yes_it_is_dropped_and_pruned(twice: Run) -> None:
    newest, _ = backups(twice)
    ran = twice("forget", "--yes", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.answer["prune"]["freed_bytes"] > 0
    assert backups(twice) == [newest]
    assert twice("check", "--level", "data").code == 0
    again = twice("forget")
    assert again.code == 0
    assert again.out.startswith("dropped 0 backups") or again.out.startswith("to drop 0 backups")
    assert twice("verify", "--level", "restore").code == 0


def test_a_person_is_asked_once_and_taken_at_their_word(twice: Run, project: Path) -> None:
    before = backups(twice)
    code, seen = typed(project, "yes\n", "forget")
    assert (code, "Nothing was dropped." in seen) == (5, True)
    assert backups(twice) == before
    code, seen = typed(project, "forget\n", "forget")
    assert code == 0, seen
    assert "dropped 1 backup" in seen
    assert backups(twice) == before[:1]


def test_prune_frees_what_an_interrupted_backup_left(twice: Run, project: Path) -> None:
    left = project / "backups" / "data" / "ab" / f"ab{'0' * 62}"
    left.write_bytes(b"a pack that no index lists")
    ran = twice("prune", "--dry-run")
    assert ran.code == 0
    assert ran.out.startswith("about 26 B would be freed")
    assert left.exists()
    ran = twice("prune")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("26 B freed")
    assert "in no index" in ran.out
    assert not left.exists()


def test_retention_that_cannot_be_meant_is_refused(begun: Run, project: Path) -> None:
    with (project / "mcp-backup.toml").open("a") as settings:
        settings.write("\n[retention]\nminimum = -1\n")
    ran = begun("forget", "--dry-run")
    assert ran.code == 2
    assert "retention.minimum must be a number of at least 0" in ran.err


def test_no_tool_drops_or_prunes_anything() -> None:
    """That `server/` cannot even import what does is kept by test_layout."""

    async def nobody() -> None:
        raise AssertionError

    names = {tool.name for tool in backup_tools(nobody)}  # type: ignore[arg-type]
    assert not [name for name in names if any(w in name for w in ("forget", "prune", "delete"))]
