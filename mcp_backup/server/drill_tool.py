"""The tool `run_drill`."""

from importlib import import_module
from typing import Annotated, Any, Literal

from anyio import to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator, Field

from mcp_backup.drill_facts import DrillRequest
from mcp_backup.server.closed import closed, told
from mcp_backup.server.drill_reply import DrillReply, drill_summary
from mcp_backup.server.keeper import EngineSource
from mcp_backup.server.listener import listener
from mcp_backup.server.updates import DRILLS, Updates

_PROVES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
Name = Literal["", "single-server", "database-corruption", "complete-failure", "data-loss"]


def _separated(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value or ()


Names = Annotated[
    tuple[Annotated[str, Field(max_length=200)], ...],
    BeforeValidator(_separated),
    Field(description="only these sources, by name"),
]


def run_drill_tool(engine: EngineSource, updates: Updates | None = None) -> Tool:
    """Return the tool on an engine; `updates` is told of each drill."""

    async def run_drill(
        *, ctx: Context[Any, Any], scenario: Name = "", sources: Names = ()
    ) -> Annotated[CallToolResult, DrillReply]:
        """Prove that backups can be restored: restore into scratch, examine, time, put on record.

        Takes the newest and a random older backup of every source, unless scenario or sources say
        otherwise. Nothing live is touched. May take long; cancelling leaves no record.
        """
        at = await engine()
        module = await to_thread.run_sync(import_module, "mcp_backup.proof.drill")
        request = DrillRequest(sources, scenario or None)
        report = await module.drill(at, request, listener(ctx.report_progress))
        if updates:
            updates.meet(ctx)
            await updates.updated(*DRILLS)
        return told(report, DrillReply.of, drill_summary)

    return closed(run_drill, "Run a restore drill", _PROVES)
