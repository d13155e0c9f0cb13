from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.cli.arguments import arranged, moment, separated
from mcp_backup.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "verb", "meant"),
    [
        (["create", "--backup_type", "full"], "create", ["create", "--backup-type", "full"]),
        (["create", "--backup_type=full"], "create", ["create", "--backup-type=full"]),
        (["create", "--verify", "false"], "create", ["create", "--no-verify"]),
        (["create", "--verify=FALSE"], "create", ["create", "--no-verify"]),
        (["create", "--verify", "true"], "create", ["create", "--verify"]),
        (["create", "--verify"], "create", ["create", "--verify"]),
        (["create", "--no_verify"], "create", ["create", "--no-verify"]),
        (["restore", "--yes", "false"], "restore", ["restore"]),
        (["restore", "--yes", "latest"], "restore", ["restore", "--yes", "latest"]),
        (["list", "--json"], "list", ["--json", "list"]),
        (["list", "--config", "a_b.toml"], "list", ["--config", "a_b.toml", "list"]),
        (["list", "--config=a_b.toml"], "list", ["--config", "a_b.toml", "list"]),
        (["--config", "list", "create"], "create", ["--config", "list", "create"]),
        (["create", "--note", "a_b"], "create", ["create", "--note", "a_b"]),
        (["call", "t", "--a_b", "x", "--json"], "call", ["--json", "call", "t", "--a_b", "x"]),
        (["call", "t", "--verify", "no"], "call", ["call", "t", "--verify", "no"]),
        (["verify", "--", "--json"], "verify", ["verify", "--", "--json"]),
        ([], "", []),
        (["--version"], "", ["--version"]),
    ],
)
def test_flags_may_be_spelled_as_people_and_agents_spell_them(
    typed: list[str], verb: str, meant: list[str]
) -> None:
    assert arranged(typed) == (verb, meant)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_arguments_are_arranged_without_failing_and_only_once(typed: list[str]) -> None:
    _, words = arranged(typed)
    assert arranged(words)[1] == words


def test_lists_are_separated_by_commas_or_repeated() -> None:
    assert separated(["a,b", " c ,", ""]) == ("a", "b", "c")
    assert separated(None) == ()


def test_days_and_times_are_utc_unless_they_say_otherwise() -> None:
    assert moment("2026-11-22", "--since") == datetime(2026, 11, 22, tzinfo=UTC)
    assert moment("2026-11-22T02:00:00+02:00", "--since") == datetime(2026, 11, 22, tzinfo=UTC)
    assert moment("", "--since") is None
    with pytest.raises(UsageError, match="--since 'yesterday' is not a day or a time"):
        moment("yesterday", "--since")
