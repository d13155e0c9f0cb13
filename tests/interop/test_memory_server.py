"""The reference server that holds an agent's memory, from npm: backed up, wrecked, given back."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.opening import initialise, opened
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import RepositorySettings
from mcp_backup.settings_workflows import WorkflowSettings
from mcp_backup.verbs import CreateRequest, RestoreRequest
from tests.interop.npm import NODE
from tests.interop.npm import installed as installed

SERVER = NODE / "node_modules/@modelcontextprotocol/server-memory/dist/index.js"
MEMORY: list[dict[str, Any]] = [
    {"type": "entity", "name": "Ada", "entityType": "person", "observations": ["likes tea"]},
    {"type": "entity", "name": "Engine", "entityType": "machine", "observations": []},
    {"type": "relation", "from": "Ada", "to": "Engine", "relationType": "programs"},
]


def entities_and_relations() -> list[WorkflowSettings]:
    """How the graph is read and given back: entities by name, relations by all they are."""
    common = {"command": ["node", str(SERVER)], "tool": "read_graph"}
    common |= {"pass_environment": ["MEMORY_FILE_PATH"]}
    entities: dict[str, Any] = {
        "name": "memory-entities",
        "items": "entities",
        "id": ["name"],
        "restore": {
            "tool": "create_entities",
            "argument": "entities",
            "list": True,
            "replaces": False,
        },
        "remove": {"tool": "delete_entities", "argument": "entityNames", "list": True},
    }
    relations: dict[str, Any] = {
        "name": "memory-relations",
        "items": "relations",
        "id": ["from", "relationType", "to"],
        "restore": {"tool": "create_relations", "argument": "relations", "list": True},
        "remove": {
            "tool": "delete_relations",
            "argument": "relations",
            "by": "document",
            "list": True,
        },
    }
    return [WorkflowSettings.model_validate(common | each) for each in (entities, relations)]


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(found, key=lambda line: json.dumps(line, sort_keys=True))


async def test_the_memory_of_the_reference_server_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory.jsonl"
    monkeypatch.setenv("MEMORY_FILE_PATH", str(memory))
    memory.write_text("".join(json.dumps(line) + "\n" for line in MEMORY))
    settings = Settings(
        repository=RepositorySettings(
            location=str(tmp_path / "backups"), password_file=tmp_path / "backups.key"
        ),
        workflows=tuple(entities_and_relations()),
        state_dir=tmp_path / "mine",
    )
    await initialise(settings)
    before = lines(memory)
    async with opened(settings) as engine:
        report = await engine.create(CreateRequest())
        assert [outcome.files for outcome in report.outcomes] == [2, 1]
        changed = MEMORY[0] | {"observations": ["hates tea"]}
        memory.write_text(json.dumps(changed) + "\n")
        plan = await engine.plan_restore(RestoreRequest())
        await engine.restore(plan.plan_id, consent=True)
    assert lines(memory) == before
