"""MCP servers known to hold state worth a backup, and directories of documents.

Servers are recognised in the files that configure clients, directories by what they are called.

What a server's tools are called cannot be seen from its configuration, so only servers whose tools
are known are proposed. Values of their environment may be secrets: of those that a server is known
to need for finding its state, and of no others, the value is taken.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

_MEMORY = "@modelcontextprotocol/server-memory"
_MEMORY_FILE = "MEMORY_FILE_PATH"
_MAHAVISHNU = "mahavishnu"
_DOCUMENTS = "workflows"  # a directory of JSON files that is called like this


class WorkflowsFound(Struct, frozen=True):
    """A `[[workflows]]` source: its name and its other settings, as they are written there."""

    name: str
    settings: Mapping[str, Any]

    @property
    def told(self) -> str:
        """What it is, for people."""
        path = self.settings.get("path")
        return f"JSON documents in {path}" if path else f"{self.name}, state of an MCP server"


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


def documents_in(cwd: Path, passed_over: frozenset[str]) -> Iterator[WorkflowsFound]:
    """Yield `workflows` below `cwd`, or below a directory in it, where there are JSON files."""
    for path in [cwd / _DOCUMENTS, *sorted(cwd.glob(f"*/{_DOCUMENTS}"))]:
        outer = path.parent.name
        if not path.is_dir() or (path.parent != cwd and outer in passed_over):
            continue
        if any(True for depth in ("*.json", "*/*.json") for _ in path.glob(depth)):
            name = _DOCUMENTS if path.parent == cwd else f"{outer}-{_DOCUMENTS}"
            settled = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            yield WorkflowsFound(settled, {"path": path})


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
