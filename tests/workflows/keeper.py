"""An MCP server that holds workflows as Mahavishnu does, in a file that tests can look into.

    python -m tests.workflows.keeper STATE [PORT]

On stdio, or, with a port, over streamable HTTP. STATE is a JSON file: `workflows` by id, and
`mood`, which makes the server misbehave in the ways that servers do.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer


def main(state: Path, port: int | None) -> None:
    server = MCPServer("keeper", version="1.0")

    def load() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(state.read_text())
        return document

    def save(document: dict[str, Any]) -> None:
        fresh = state.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.rename(state)

    @server.tool()
    def list_workflows(limit: int = 100, cursor: str = "") -> dict[str, Any]:
        """List workflows, in pages."""
        document = load()
        mood = document.get("mood", "")
        if mood == "error in a success":
            return {"status": "error", "error": "the\x1b[31m database is locked"}
        if mood == "crash":
            raise RuntimeError("out of order")
        found = [document["workflows"][key] for key in sorted(document["workflows"])]
        start = int(cursor or 0)
        page: dict[str, Any] = {"status": "success", "workflows": found[start : start + limit]}
        page["total"] = len(found)
        if mood == "endless":
            page |= {"workflows": [], "next_cursor": "0"}
        elif start + limit < len(found):
            page["next_cursor"] = str(start + limit)
        if mood == "twins":
            page["workflows"] = page["workflows"][:1] * 2
        if mood == "nameless":
            page["workflows"] = [{"title": "no id"}]
        return page

    @server.tool()
    def save_workflow(workflow: dict[str, Any]) -> dict[str, Any]:
        """Store a workflow, over one of the same id."""
        while (document := load()).get("mood") == "stuck" and document.get("saves"):
            time.sleep(0.02)
        if workflow["id"] in document.get("refused", []):
            return {"success": False, "message": f"{workflow['id']} is not wanted"}
        document["saves"] = document.get("saves", 0) + 1
        document["workflows"][workflow["id"]] = workflow | {"updated_at": document["saves"]}
        save(document)
        return {"status": "success"}

    @server.tool()
    def delete_workflow(workflow_id: str) -> dict[str, Any]:
        """Remove a workflow."""
        document = load()
        del document["workflows"][workflow_id]
        save(document)
        return {"status": "success"}

    @server.tool()
    def prose() -> str:
        """Answer what is no JSON."""
        return "I have a few workflows, would you like to hear of them?"

    if port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", port=port)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
