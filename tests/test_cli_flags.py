from typing import Any

import pytest

from mcp_backup.cli.flags import described, tool_arguments
from mcp_backup.errors import UsageError

SCHEMA: dict[str, Any] = {
    "properties": {
        "backup_type": {"$ref": "#/$defs/Type"},
        "verify": {"type": "boolean", "description": "read it back"},
        "components": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "limit": {"type": "integer"},
        "share": {"type": "number"},
        "extra": {"type": "object"},
        "note": {"type": "string"},
    },
    "$defs": {"Type": {"enum": ["full", "config"], "type": "string"}},
    "required": ["note"],
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--backup_type full", {"backup_type": "full"}),
        ("--backup-type=full", {"backup_type": "full"}),
        ("--verify", {"verify": True}),
        ("--verify --limit 3", {"verify": True, "limit": 3}),
        ("--verify false", {"verify": False}),
        ("--verify=no", {"verify": False}),
        ("--no-verify", {"verify": False}),
        ("--no_verify=false", {"verify": True}),
        ("--components databases,config", {"components": ["databases", "config"]}),
        ("--components a --components b", {"components": ["a", "b"]}),
        ('--components ["a"]', {"components": ["a"]}),
        ("--share 0.5", {"share": 0.5}),
        ('--extra {"a":1}', {"extra": {"a": 1}}),
    ],
)
def test_flags_become_what_the_schema_says(typed: str, meant: dict[str, object]) -> None:
    arguments = tool_arguments("t", SCHEMA, [*typed.split(), "--note", "x"])
    assert arguments == {"note": "x", **meant}


@pytest.mark.parametrize("text", ["null", "[1]", "true", "", "--=", "a=b"])
def test_text_is_left_as_it_was_typed(text: str) -> None:
    assert tool_arguments("t", SCHEMA, [f"--note={text}"]) == {"note": text}


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--bakup_type full", "does not take '--bakup_type'; did you mean --backup_type?"),
        ("full", "does not take 'full'"),
        ("--note", "--note has no value"),
        ("--note --verify", "--note has no value"),
        ("--limit many --note x", "--limit 'many' is not of type integer"),
        ("--verify=maybe --note x", "--verify 'maybe' is not of type boolean"),
        ("--verify", "t needs --note"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_refused_in_a_sentence(typed: str, told: str) -> None:
    with pytest.raises(UsageError) as refusal:
        tool_arguments("t", SCHEMA, typed.split())
    assert told in str(refusal.value)
    assert refusal.value.hint.endswith("Nothing was called.")


def test_a_tool_can_be_described_without_knowing_it() -> None:
    assert described("t", SCHEMA)[:2] == [
        "  --backup_type full|config",
        "  --verify true|false  read it back",
    ]
    assert described("t", {}) == ["  t takes nothing"]
