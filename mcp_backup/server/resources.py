"""What agents can read: the runbook, manifests of backups, and what drills proved. No secrets.

Pages of the runbook are the printed text. A manifest names files and counts rows; contents are in
no resource.
"""

import json
from importlib import import_module
from typing import Any

from anyio import to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources.types import TextResource

from mcp_backup.errors import BackupError, UsageError
from mcp_backup.record import asdict
from mcp_backup.runbook.pages import OTHER_PAGES, SCENARIO_PAGES, page
from mcp_backup.server.keeper import EngineSource
from mcp_backup.server.updates import Updates
from mcp_backup.server.wording import readable

_FILES = 50  # of a source that a manifest shows
_DRILLS = 20
_JSON, _MARKDOWN = "application/json", "text/markdown"


def add_resources(server: MCPServer[Any], engine: EngineSource, updates: Updates) -> None:
    """Add the resources to a server."""
    _add_pages(server)
    _add_drills(server, engine, updates)
    _add_manifests(server, engine, updates)


def _add_pages(server: MCPServer[Any]) -> None:
    for name in (*SCENARIO_PAGES, *OTHER_PAGES):
        found = page(name)
        server.add_resource(
            TextResource(
                uri=f"backup://runbook/{name}",
                name=f"runbook-{name}",
                title=found.title,
                description="A page of the runbook.",
                mime_type=_MARKDOWN,
                text=found.text,
            )
        )


def _add_drills(server: MCPServer[Any], engine: EngineSource, updates: Updates) -> None:
    @server.resource(
        "backup://drills",
        name="drills",
        title="Drills on record",
        description="The last drills, newest first, and whether their record holds.",
        mime_type=_JSON,
    )
    async def drills() -> str:
        evidence = await _told(_evidence(engine))
        rows = [_row(each) for each in reversed(evidence.records[-_DRILLS:])]
        return json.dumps({"problems": list(evidence.problems), "drills": rows}, indent=1)

    @server.resource(
        "backup://drills/{drill_id}",
        name="drill",
        title="A drill",
        description="One drill, as it is on record; `latest` is the report on all of them.",
        mime_type=_MARKDOWN,
    )
    async def drill(drill_id: str, ctx: Context[Any, Any]) -> str:
        updates.meet(ctx)
        at = await _told(engine())
        reports = await to_thread.run_sync(import_module, "mcp_backup.proof.report")
        facts = await _told(reports.gathered(at))
        if drill_id == "latest":
            text: str = reports.rendered(facts, "md")
            return text
        for record in facts.evidence.records:
            if record.drill.drill_id == drill_id:
                return f"```json\n{json.dumps(asdict(record.drill), indent=1, default=str)}\n```\n"
        raise ResourceNotFoundError(f"no drill {drill_id} is on record")


def _row(record: Any) -> dict[str, Any]:
    return {
        "record": record.number,
        "drill_id": record.drill.drill_id,
        "started": record.drill.started.isoformat(),
        "outcome": record.drill.outcome,
        "scenario": record.drill.scenario,
        "findings": len(list(record.drill.every_finding())),
    }


def _add_manifests(server: MCPServer[Any], engine: EngineSource, updates: Updates) -> None:
    @server.resource(
        "backup://manifests/{backup_id}",
        name="manifest",
        title="What a backup holds",
        description="Sources, files, sizes, digests and row counts of a backup, or of `latest`.",
        mime_type=_JSON,
    )
    async def manifest(backup_id: str, ctx: Context[Any, Any]) -> str:
        updates.meet(ctx)
        catalog = (await _told(engine())).catalog
        backup = await _told(catalog.find(backup_id))
        found = await _told(catalog.manifest(backup))
        if found is None:
            raise ResourceNotFoundError(f"{backup_id} was made by another program")
        document = asdict(found)
        for source in document["sources"]:
            _shorten(source)
        return json.dumps(document, indent=1)  # in ASCII: names may be no text


def _shorten(source: dict[str, Any]) -> None:
    evidence = source.get("evidence")
    if evidence:
        left_out = len(evidence["files"]) - _FILES
        evidence["files"] = evidence["files"][:_FILES]
        if left_out > 0:
            evidence["files_left_out"] = left_out


async def _evidence(engine: EngineSource) -> Any:
    at = await engine()
    module = await to_thread.run_sync(import_module, "mcp_backup.proof.drill")
    return await module.ledger_of(at).read()


async def _told(answer: Any) -> Any:
    """Wait for an answer, and let clients read an expected failure."""
    try:
        return await answer
    except UsageError as error:
        raise ResourceNotFoundError(readable(str(error))) from error
    except BackupError as error:
        raise ResourceError(f"[{error.code}] {readable(str(error))}") from error
