"""The reference server that holds an agent's memory, from npm: backed up, wrecked, given back."""

import json
from pathlib import Path
from typing import Any

from mcp_backup.discovery_servers import workflows_of
from mcp_backup.opening import initialise, opened
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import RepositorySettings
from mcp_backup.settings_table import checked
from mcp_backup.settings_workflows import WorkflowSettings
from mcp_backup.verbs import CreateRequest
from mcp_backup.verbs_restores import RestoreRequest
from tests.interop.npm import NODE
from tests.interop.npm import installed as installed

SERVER = NODE / "node_modules/@modelcontextprotocol/server-memory/dist/index.js"
NAME = "@modelcontextprotocol/server-memory"
MEMORY: list[dict[str, Any]] = [
    {"type": "entity", "name": "Ada", "entityType": "person", "observations": ["likes tea"]},
    {"type": "entity", "name": "Engine", "entityType": "machine", "observations": []},
    {"type": "relation", "from": "Ada", "to": "Engine", "relationType": "programs"},
]


def as_init_proposes(memory: Path) -> tuple[WorkflowSettings, ...]:
    """The sources that `init` writes for a client configured with this server."""
    configured = {
        "command": "node",
        "args": [str(SERVER), NAME],
        "env": {"MEMORY_FILE_PATH": str(memory), "OTHER_TOKEN": "s3cret"},
    }
    found = list(workflows_of("memory", configured))
    assert "s3cret" not in str(found)
    return tuple(checked(WorkflowSettings, {"name": item.name, **item.settings}) for item in found)


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(found, key=lambda line: json.dumps(line, sort_keys=True))


async def test_the_memory_of_the_reference_server_is_given_back(
    tmp_path: Path,
) -> None:
    memory = tmp_path / "memory.jsonl"
    memory.write_text("".join(json.dumps(line) + "\n" for line in MEMORY))
    settings = Settings(
        repository=RepositorySettings(
            location=str(tmp_path / "backups"), password_file=tmp_path / "backups.key"
        ),
        workflows=as_init_proposes(memory),
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
