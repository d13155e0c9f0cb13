"""Asking the person at the client, where the settings say that their answer is enough.

Asked before the tool runs, in whichever way the client's protocol era has. A question must be
the same on every round, so it is worded from the stored plan and nothing else.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.mcpserver import Context, Elicit
from mcp.server.mcpserver.resolve import (
    AcceptedElicitation,
    CancelledElicitation,
    DeclinedElicitation,
)
from pydantic import BaseModel, Field

from mcp_backup.errors import RestoreDeclined
from mcp_backup.server import summaries
from mcp_backup.server.keeper import EngineSource
from mcp_backup.server.replies import RestoreReply

_ROWS = 20  # of what would be replaced, in one question
_FIRST_ASKED_IN_RESULT = "2026-07-28"  # from this protocol version on, no back-channel is needed


class Consent(BaseModel):
    """What the person is asked to fill in. An empty form is a no."""

    confirm: bool = Field(
        default=False, title="Replace live data", description="Yes, do what is described above."
    )


Answer = AcceptedElicitation[Consent] | DeclinedElicitation | CancelledElicitation
Question = Callable[..., Awaitable[Elicit[Consent] | None]]


def restore_question(engine: EngineSource) -> Question:
    """Return what asks about a restore; it asks nothing where asking is not enough or possible."""

    async def ask(ctx: Context[Any, Any], plan_id: str, dry_run: bool) -> Elicit[Consent] | None:
        if not plan_id or dry_run or not _can_be_asked(ctx):
            return None
        plan = await (await engine()).plan(plan_id)
        if plan.approval != "elicit" or plan.approved or plan.undoes:
            return None
        return Elicit(summaries.restore_question(RestoreReply.planned(plan, _ROWS)), Consent)

    return ask


def undo_question(engine: EngineSource) -> Question:
    """Return what asks about an undo; it asks nothing where asking is not enough or possible."""

    async def ask(ctx: Context[Any, Any], restore_id: str) -> Elicit[Consent] | None:
        at = await engine()
        if at.confirmation != "elicit" or not _can_be_asked(ctx):
            return None
        points = [point for point in await at.restores() if point.restore_id == restore_id]
        return Elicit(summaries.undo_question(points[0]), Consent) if points else None

    return ask


def consented(answer: Answer, subject: str) -> bool:
    """Tell whether the person said yes; False when nobody was asked.

    Raises:
        RestoreDeclined: the person was asked and did not say yes.
    """
    if answer.action != "accept":
        raise RestoreDeclined(subject)
    if answer.data is None:  # the resolver asked nothing, which the SDK hands on as "accept"
        return False
    if not answer.data.confirm:
        raise RestoreDeclined(subject)
    return True


def _can_be_asked(ctx: Context[Any, Any]) -> bool:
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return (ctx.protocol_version or "") >= _FIRST_ASKED_IN_RESULT or ctx.session.can_send_request
