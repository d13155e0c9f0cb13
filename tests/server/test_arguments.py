"""What a tool takes: its own arguments, in every spelling that terminals and agents send."""

from pathlib import Path
from typing import Any, get_args

import pytest

from mcp_backup.server import tools
from mcp_backup.sources.source import Component
from mcp_backup.verbs import BackupType, Level
from tests.server.conftest import Machine, answered, refusal


async def test_every_tool_says_that_it_takes_no_other_arguments(machine: Machine) -> None:
    async with machine.client() as client:
        listed = await client.list_tools()
    assert len(listed.tools) == 7
    for tool in listed.tools:
        assert tool.input_schema["additionalProperties"] is False


async def test_an_unknown_argument_is_refused_and_nothing_is_done(machine: Machine) -> None:
    async with machine.client() as client:
        code, text = await refusal(client, "create_backup", note="x", **{"backup-type": "full"})
        page = await answered(client, "list_backups")
    assert code == "usage"
    assert "no argument 'backup-type'; did you mean 'backup_type'?" in text
    assert page["total"] == 1  # the one that was there


async def test_wrong_values_are_told_in_one_sentence_without_repeating_them(
    machine: Machine,
) -> None:
    async with machine.client() as client:
        code, text = await refusal(
            client, "create_backup", backup_type="Secret", verify="perhaps", databases={"a": 1}
        )
    assert code == "usage"
    assert text.startswith("[usage] create_backup: backup_type should be 'full', 'incremental'")
    assert "; verify should be true or false" in text
    assert "; databases should be a valid list" in text
    for leaked in ("Secret", "perhaps", "pydantic", "http", "\n"):
        assert leaked not in text


async def test_a_missing_argument_is_named(machine: Machine) -> None:
    async with machine.client() as client:
        assert await refusal(client, "undo_restore") == (
            "usage",
            "[usage] undo_restore: restore_id is needed. Nothing was done.",
        )


@pytest.mark.parametrize("spelling", ["config,databases", '["config", "databases"]', " config ,"])
async def test_a_list_may_be_text(machine: Machine, spelling: str) -> None:
    async with machine.client() as client:
        plan = await answered(client, "restore_backup", components=spelling)
    assert "config" in {target["component"] for target in plan["targets"]}
    assert len(plan["targets"]) == 1 + ("databases" in spelling)


@pytest.mark.parametrize("spelling", [True, "true", "True", "1", "yes"])
async def test_a_switch_may_be_text(machine: Machine, spelling: Any) -> None:
    async with machine.client() as client:
        answer = await answered(client, "restore_backup", dry_run=spelling, target="scratch")
    assert answer["status"] == "planned"


@pytest.mark.parametrize("note", ["null", "[1]", '{"a": 1}', "true", "00123"])
async def test_text_that_looks_like_json_stays_text(empty: Machine, note: str) -> None:
    async with empty.client() as client:
        code, text = await refusal(client, "verify_backup", backup_id=note)
    assert code == "unknown-backup"
    assert repr(note) in text


@pytest.mark.parametrize(
    ("tool", "argument", "expected"),
    [
        ("verify_backup", "backup_id", "unknown-backup"),
        ("restore_backup", "backup_id", "unknown-backup"),
        ("restore_backup", "plan_id", "unknown-plan"),
        ("undo_restore", "restore_id", "unknown-plan"),
        ("list_backups", "cursor", "usage"),
        ("create_backup", "databases", "unknown-source"),
        ("restore_backup", "databases", "unknown-source"),
    ],
)
async def test_an_id_that_is_a_path_is_unknown_and_leaves_nothing(
    machine: Machine, tool: str, argument: str, expected: str
) -> None:
    def files() -> set[Path]:
        found = {path for path in machine.root.rglob("*") if "locks" not in path.parts}
        return {path for path in found if path.suffix != ".lock"}  # of ours: empty, and named by us

    async with machine.client() as client:
        await client.list_tools()
        before = files()
        for hostile in ("../../etc/passwd", "..", "/etc/passwd", "a\x00b", "x" * 200):
            code, _ = await refusal(client, tool, **{argument: hostile})
            assert code == expected
        assert files() <= before


async def test_a_name_longer_than_any_is_refused_unread(machine: Machine) -> None:
    async with machine.client() as client:
        code, text = await refusal(client, "verify_backup", backup_id="x" * 100_000)
    assert (code, len(text) < 200) == ("usage", True)


@pytest.mark.parametrize("since", ["2000-01-01", "2000-01-01T00:00:00Z", "2000-01-01T00:00+01:00"])
async def test_a_time_may_be_a_day(machine: Machine, since: str) -> None:
    async with machine.client() as client:
        assert (await answered(client, "list_backups", since=since))["total"] == 1
        assert (await answered(client, "list_backups", until=since))["total"] == 0


async def test_what_is_no_time_is_refused_with_an_example(machine: Machine) -> None:
    async with machine.client() as client:
        code, text = await refusal(client, "list_backups", since="yesterday")
    assert code == "usage"
    assert "2026-11-22T20:30:00Z" in text


def test_the_words_a_client_may_use_are_the_engines() -> None:
    assert set(get_args(tools.TypeName)) == set(BackupType)
    assert set(get_args(tools.LevelName)) == set(Level)
    assert set(get_args(tools.ComponentName)) == set(Component)
