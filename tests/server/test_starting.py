"""Starting quickly: a client waits for every module that is loaded before its first answer."""

import subprocess
import sys

import pytest


def loaded(statement: str) -> set[str]:
    """Return the modules loaded after a statement, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "library", ["mcp_backup.engine", "mcp_backup.repository", "typer", "rich", "apsw"]
)
def test_what_the_first_answers_do_not_need_is_loaded_later(library: str) -> None:
    assert library not in loaded("import mcp_backup.server.run")


def test_the_replies_that_the_terminal_prints_load_no_protocol() -> None:
    assert "mcp" not in loaded("import mcp_backup.server.replies")
