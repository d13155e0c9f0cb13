"""MCP servers known to hold state worth a backup, recognised in the files that configure clients.

What a server's tools are called cannot be seen from its configuration, so only servers whose tools
are known are proposed. Values of their environment may be secrets: of those that a server is known
to need for finding its state, and of no others, the value is taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MEMORY = "@modelcontextprotocol/server-memory"
_MEMORY_FILE = "MEMORY_FILE_PATH"
_MAHAVISHNU = "mahavishnu"


@dataclass(frozen=True, slots=True)
class WorkflowsFound:
    """A `[[workflows]]` source: its name and its other settings, as they are written there."""

    name: str
    settings: Mapping[str, Any]


def workflows_of(name: str, server: object) -> Iterator[WorkflowsFound]:
    """Yield the sources that a configured server is known to be good for."""
    if not isinstance(server, dict):
        return
    command, arguments, url = server.get("command"), server.get("args"), server.get("url")
    words = [command, *(arguments if isinstance(arguments, list) else [])]
    spoken = [word for word in words if isinstance(word, str)]
    if spoken == words and any(word.startswith(_MEMORY) for word in spoken):
        yield from _memory(name, spoken, server.get("env"))
    elif name == _MAHAVISHNU and isinstance(url, str) and "@" not in url:
        arguments = {"limit": 10000}
        yield WorkflowsFound(name, {"url": url, "tool": "list_workflows", "arguments": arguments})


def _memory(name: str, words: list[str], environment: object) -> Iterator[WorkflowsFound]:
    """The reference server that keeps a graph: entities by name, relations by all they are."""
    common: dict[str, Any] = {"command": words, "tool": "read_graph"}
    if isinstance(environment, dict) and isinstance(environment.get(_MEMORY_FILE), str):
        common["environment"] = {_MEMORY_FILE: environment[_MEMORY_FILE]}
    create = {"tool": "create_entities", "argument": "entities", "list": True, "replaces": False}
    delete = {"tool": "delete_entities", "argument": "entityNames", "list": True}
    entities = {"items": "entities", "id": ["name"], "restore": create, "remove": delete}
    yield WorkflowsFound(f"{name}-entities", common | entities)
    create = {"tool": "create_relations", "argument": "relations", "list": True}
    delete = {"tool": "delete_relations", "argument": "relations", "by": "document", "list": True}
    identity = ["from", "relationType", "to"]
    relations = {"items": "relations", "id": identity, "restore": create, "remove": delete}
    yield WorkflowsFound(f"{name}-relations", common | relations)
