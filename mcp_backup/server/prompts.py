"""Prompts: the runbook's pages as tasks for an agent, filled in for this installation.

Ids and sources complete. Nothing secret is in them: the owner's own commands are named, not told.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Annotated, Any

from anyio import to_thread
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts.base import Prompt
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)
from pydantic import Field

from mcp_backup.drill_facts import SCENARIOS
from mcp_backup.errors import BackupError
from mcp_backup.runbook.pages import filled, page
from mcp_backup.server.keeper import EngineSource
from mcp_backup.server.wording import readable

_COMPLETIONS = 100  # as many as the protocol allows
_OWN = ("stop", "start", "check")

_TASK = """\
Help a person through the page below, step by step. One step at a time: say what it does, run it or
let them run it, compare the output with the page, and write down the time.
Use the tools where a command has one: list_backups, verify_backup, restore_backup (target=scratch
touches nothing live), undo_restore, run_drill, backup_status. Commands that change live data need
the person's yes each time; replacing live data needs their approval as restore_backup says. Never
approve a plan yourself. When output is not as printed, stop, and say so.
Where the page has a <name>, ask the person.{problem}

"""

_Completing = Callable[
    [
        PromptReference | ResourceTemplateReference,
        CompletionArgument,
        CompletionContext | None,
    ],
    Awaitable[Completion | None],
]
_Registering = Callable[[_Completing], _Completing]

Source = Annotated[str, Field(description="the source it is about, by name")]
BackupId = Annotated[str, Field(description="the backup to restore; the newest by default")]
Table = Annotated[str, Field(description="the table that rows are missing from")]


def add_prompts(server: MCPServer[Any], engine: EngineSource) -> None:
    """Add the prompts and their completions to a server."""
    for scenario in SCENARIOS:
        low, high = (f"{hours:g}" for hours in scenario.hours)
        server.add_prompt(
            Prompt.from_function(
                _recovery(engine, scenario.name),
                name=f"recover-{scenario.name}",
                title=scenario.title,
                description=f"{scenario.title}: get it back, in {low} to {high} hours.",
            )
        )
    server.add_prompt(
        Prompt.from_function(
            _plain(engine, "post-incident"),
            name="post-incident-review",
            title="Review an incident",
            description="Prepare the review: timeline, root cause, action items.",
        )
    )
    register: _Registering = server.completion()  # type: ignore[no-untyped-call]  # the SDK's
    register(_completing(engine))


def _recovery(engine: EngineSource, name: str) -> Callable[..., Awaitable[str]]:
    async def recover(source: Source = "", backup_id: BackupId = "") -> str:
        return await _task(engine, name, source, backup_id)

    async def recover_rows(source: Source = "", table: Table = "", backup_id: BackupId = "") -> str:
        return await _task(engine, name, source, backup_id, table)

    return recover_rows if name == "data-loss" else recover


def _plain(engine: EngineSource, name: str) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        return await _task(engine, name)

    return read


async def _task(
    engine: EngineSource, name: str, source: str = "", backup_id: str = "", table: str = ""
) -> str:
    """Return a page as a task. A repository that does not open is said, not refused."""
    values: dict[str, str] = {}
    problem = ""
    try:
        at = await engine()
        filling = await to_thread.run_sync(import_module, "mcp_backup.runbook.filling")
        values = await filling.of_engine(at, source, backup_id)
        values |= await to_thread.run_sync(filling.of_walks, at.settings, name)
    except BackupError as error:
        problem = f"\nWhat could not be filled in: [{error.code}] {readable(str(error))}"
    values |= {word: f"<your own command: recovery.{word}>" for word in _OWN}
    if table:
        values["table"] = readable(table)
    return _TASK.format(problem=problem) + filled(page(name).text, values)


def _completing(engine: EngineSource) -> _Completing:
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        try:
            known = await _known(engine, argument.name, context)
        except BackupError:
            return None  # the repository does not open; calls will say why
        found = [value for value in known if value.startswith(argument.value)]
        return Completion(
            values=found[:_COMPLETIONS], total=len(found), has_more=len(found) > _COMPLETIONS
        )

    return complete


async def _known(engine: EngineSource, name: str, context: CompletionContext | None) -> list[str]:
    """Return what an argument can be, newest first."""
    at = await engine()
    if name == "source":
        return [spec.name for spec in at.settings.sources()]
    if name == "backup_id":
        chosen = (context.arguments or {}).get("source", "") if context else ""
        page_ = await at.backups(limit=_COMPLETIONS, source=chosen)
        return [entry.backup_id for entry in page_.entries if entry.ours]
    if name == "drill_id":
        module = await to_thread.run_sync(import_module, "mcp_backup.proof.drill")
        evidence = await module.ledger_of(at).read()
        return [record.drill.drill_id for record in reversed(evidence.records)]
    return []
