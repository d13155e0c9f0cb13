"""Answers that every client can check against their schema, and no reader is misled by."""

import math
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it comes with mcp, without types
import pytest
from pydantic import ValidationError

from mcp_backup.server.replies import PutBackReply, VerifyReply
from mcp_backup.server.summaries import verify_summary
from mcp_backup.sources.source import Component
from mcp_backup.verbs import Level, SourceFinding, VerifyReport
from mcp_backup.verbs_restores import RestoredTarget
from tests.server.conftest import ERAS, Era, Machine, answered

FORMATS = jsonschema.FormatChecker()


def report(subject: str, seconds: float = 1.0) -> VerifyReport:
    finding = SourceFinding("notes", "digest", subject, "differs")
    return VerifyReport("backup_1", "ab" * 32, Level.DATA, (finding,), ("notes",), 1, seconds)


@pytest.mark.parametrize("era", ERAS)
async def test_every_answer_is_valid_by_its_published_schema(machine: Machine, era: Era) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("create_backup", {"backup_type": "config", "note": "é"}),
        ("list_backups", {"limit": 1}),
        ("verify_backup", {}),
        ("restore_backup", {}),
        ("restore_backup", {"target": "scratch", "components": "config"}),
    ]
    async with machine.client(era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        for tool, arguments in calls:
            content = await answered(client, tool, **arguments)
            schema = schemas[tool]
            assert schema is not None
            jsonschema.validate(content, schema, format_checker=FORMATS)


def test_file_names_that_are_not_text_are_escaped() -> None:
    name = b"caf\xe9\xff.db".decode(errors="surrogateescape")
    target = RestoredTarget("notes", Component.DATABASES, f"/data/{name}", 1)
    reply = PutBackReply.of(target)
    assert reply.path == "/data/caf\\udce9\\udcff.db"
    assert reply.model_dump_json()


def test_control_characters_cannot_forge_lines() -> None:
    reply = VerifyReply.of(report("a\n\x1b[2Keverything agrees\r"))
    assert len(verify_summary(reply).splitlines()) == 2
    assert reply.findings[0].subject == "a\\x0a\\x1b[2Keverything agrees\\x0d"


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_numbers_that_json_cannot_carry_never_leave(number: float) -> None:
    with pytest.raises(ValidationError):
        VerifyReply.of(report("a", seconds=number))
