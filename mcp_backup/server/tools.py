"""The tools: what an agent can ask for. Each names a verb, calls it and tells its report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from anyio import to_thread
from mcp.server.mcpserver import Context, ElicitationResult, Resolve
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator, Field

from mcp_backup.errors import UsageError
from mcp_backup.server.closed import closed, told
from mcp_backup.server.consent import Consent, consented, restore_question, undo_question
from mcp_backup.server.drill_tool import run_drill_tool
from mcp_backup.server.finishing import finished
from mcp_backup.server.keeper import EngineSource
from mcp_backup.server.list_reply import BackupsReply
from mcp_backup.server.listener import listener
from mcp_backup.server.replies import (
    BackupReply,
    RestoreReply,
    UndoReply,
    VerifyReply,
)
from mcp_backup.server.status_reply import StatusReply, status_summary
from mcp_backup.server.summaries import (
    backup_summary,
    backups_summary,
    restore_summary,
    undo_summary,
    verify_summary,
)
from mcp_backup.server.updates import Updates
from mcp_backup.sources.source import Component
from mcp_backup.verbs import BackupType, CreateRequest, Level

if TYPE_CHECKING:
    from mcp_backup.verbs_restores import RestorePlan

DEFAULT_LIMIT = 10  # backups in a page: with their names and text about 1,000 tokens

_READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_ADDS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
_REPLACES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)


def _separated(value: Any) -> Any:
    """Take "a,b" for a list; terminals and some agents send strings."""
    if value is None:
        return ()
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


# Plain `str` for whatever is a name: the SDK parses text for any other type as JSON first.
Id = Annotated[str, Field(max_length=200)]
Names = Annotated[tuple[Id, ...], BeforeValidator(_separated)]
BackupId = Annotated[
    str, Field(max_length=200, description="backup id, snapshot id or its start, or latest")
]
TypeName = Literal["full", "incremental", "database", "config", "workflow"]
LevelName = Literal["structure", "data", "restore"]
ComponentName = Literal["databases", "config", "workflows"]
ComponentNames = Annotated[tuple[ComponentName, ...], BeforeValidator(_separated)]
Moment = Annotated[str, Field(max_length=40, description="ISO 8601; UTC unless it says otherwise")]


def backup_tools(engine: EngineSource, updates: Updates | None = None) -> list[Tool]:
    """Return the tools on an engine; `updates` is told of what they change."""
    return [
        _create_backup(engine),
        _list_backups(engine),
        _backup_status(engine),
        _verify_backup(engine),
        _restore_backup(engine),
        _undo_restore(engine),
        run_drill_tool(engine, updates),
    ]


def _create_backup(engine: EngineSource) -> Tool:
    async def create_backup(
        *,
        ctx: Context[Any, Any],
        backup_type: Annotated[
            TypeName,
            Field(
                description="full reads every source whole; incremental skips what provably did "
                "not change; the others back up one component"
            ),
        ] = "full",
        databases: Annotated[Names, Field(description="only these database sources, by name")] = (),
        verify: Annotated[bool, Field(description="read back and examine what was stored")] = True,
        note: Annotated[str, Field(max_length=500)] = "",
    ) -> Annotated[CallToolResult, BackupReply]:
        """Back up now: databases while they are written to, and files.

        Answers one outcome per source; status "partial" means that some failed, and says why.
        Nothing live is changed. Cancelling leaves no backup.
        """
        request = CreateRequest(BackupType(backup_type), databases, verify, note)
        at, listen = await engine(), listener(ctx.report_progress)
        report = await finished(ctx, lambda: at.create(request, listen), "backup")
        return told(report, BackupReply.of, backup_summary)

    return closed(create_backup, "Create a backup", _ADDS)


def _list_backups(engine: EngineSource) -> Tool:
    async def list_backups(  # noqa: PLR0913 - the tool's arguments, one by one
        *,
        limit: Annotated[int, Field(ge=1, le=100)] = DEFAULT_LIMIT,
        cursor: Annotated[Id, Field(description="next_cursor of the page before")] = "",
        source: Annotated[Id, Field(description="only backups that hold this source")] = "",
        backup_type: Literal["", "full", "incremental", "database", "config", "workflow"] = "",
        since: Moment = "",
        until: Moment = "",
    ) -> Annotated[CallToolResult, BackupsReply]:
        """List backups, newest first."""
        page = await (await engine()).backups(
            limit=limit,
            cursor=cursor,
            source=source,
            backup_type=backup_type,
            since=_moment("since", since),
            until=_moment("until", until),
        )
        return told(page, BackupsReply.of, backups_summary)

    return closed(list_backups, "List backups", _READS)


def _backup_status(engine: EngineSource) -> Tool:
    async def backup_status() -> Annotated[CallToolResult, StatusReply]:
        """Say how the backups are: healthy, at risk or failing, why, and what is not protected."""
        at = await engine()
        module = await to_thread.run_sync(import_module, "mcp_backup.status")
        return told(await module.status(at), StatusReply.of, status_summary)

    return closed(backup_status, "How the backups are", _READS)


def _verify_backup(engine: EngineSource) -> Tool:
    async def verify_backup(
        *,
        ctx: Context[Any, Any],
        backup_id: BackupId = "latest",
        level: Annotated[
            LevelName,
            Field(
                description="structure: all parts are there; data: every byte is read back and "
                "checked; restore: rebuilt in scratch and examined"
            ),
        ] = "data",
    ) -> Annotated[CallToolResult, VerifyReply]:
        """Check that a backup can be restored. Findings are what does not agree."""
        report = await (await engine()).verify(
            backup_id, Level(level), listener(ctx.report_progress)
        )
        return told(report, VerifyReply.of, verify_summary)

    return closed(verify_backup, "Verify a backup", _READS)


def _restore_backup(engine: EngineSource) -> Tool:
    question = restore_question(engine)

    async def restore_backup(  # noqa: PLR0913 - the tool's arguments, one by one
        *,
        ctx: Context[Any, Any],
        answer: Annotated[ElicitationResult[Consent], Resolve(question)],
        backup_id: BackupId = "latest",
        components: ComponentNames = (),
        databases: Annotated[Names, Field(description="only these database sources, by name")] = (),
        target: Annotated[
            Literal["original", "scratch"],
            Field(description="original: over the live data; scratch: beside it, to look at"),
        ] = "original",
        dry_run: Annotated[bool, Field(description="only show the plan")] = False,
        plan_id: Annotated[Id, Field(description="do this plan; pass it alone")] = "",
    ) -> Annotated[CallToolResult, RestoreReply]:
        """Give a backup's data back.

        To scratch at once. Over live data in two steps: the first call changes nothing and
        answers a plan; a person agrees as its next_step says; the second call passes plan_id.
        What was live is kept: undo_restore puts it back.
        """
        at = await engine()
        if plan_id:
            plan = await at.plan(plan_id)
            _refuse_more_than_the_plan(plan, components, databases, target)
        else:
            chosen = tuple(Component(name) for name in components)
            words = import_module("mcp_backup.verbs_restores")
            request = words.RestoreRequest(backup_id, chosen, databases, target)
            plan = await at.plan_restore(request)
        if dry_run or (not plan_id and plan.target == "original"):
            return told(plan, RestoreReply.planned, restore_summary)
        consent = consented(answer, f"plan {plan.plan_id}")
        report = await at.restore(plan.plan_id, listener(ctx.report_progress), consent=consent)
        return told(report, RestoreReply.done, restore_summary)

    return closed(restore_backup, "Restore a backup", _REPLACES)


def _undo_restore(engine: EngineSource) -> Tool:
    question = undo_question(engine)

    async def undo_restore(
        *,
        ctx: Context[Any, Any],
        answer: Annotated[ElicitationResult[Consent], Resolve(question)],
        restore_id: Annotated[Id, Field(description="undo_id of the restore")],
    ) -> Annotated[CallToolResult, UndoReply]:
        """Put live data back as it was before a restore. A person must agree, as to a restore."""
        consent = consented(answer, f"the undo of {restore_id}")
        report = await (await engine()).undo(
            restore_id, listener(ctx.report_progress), consent=consent
        )
        return told(report, UndoReply.of, undo_summary)

    return closed(undo_restore, "Undo a restore", _REPLACES)


def _refuse_more_than_the_plan(
    plan: "RestorePlan", components: Sequence[str], databases: Sequence[str], target: str
) -> None:
    """Refuse arguments that contradict a plan, or could: people agreed to the plan alone."""
    if components or databases or (target == "scratch" and plan.target == "original"):
        raise UsageError(
            f"plan {plan.plan_id} says already what is restored, and where",
            hint="Pass plan_id alone, or leave it out for a new plan. Nothing was touched.",
        )


def _moment(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{name} is not a time in ISO 8601",
            hint="Write it like 2026-11-22 or 2026-11-22T20:30:00Z.",
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
