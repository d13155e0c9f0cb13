"""status, history: how the backups are, and who did what when."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer
from msgspec import Struct

from mcp_backup.cli.arguments import moment
from mcp_backup.cli.session import session
from mcp_backup.history_facts import Run
from mcp_backup.status import status as status_of
from mcp_backup.terminal_status import listed_runs, stood

_FAILING = 3


class VerbOnRecord(StrEnum):
    """What a run can be of."""

    CREATE = "create"
    VERIFY = "verify"
    RESTORE = "restore"
    UNDO = "undo"
    APPROVE = "approve"
    FORGET = "forget"
    PRUNE = "prune"
    CHECK = "check"
    DRILL = "drill"
    WALK = "walk"
    KEY_ADD = "key-add"
    KEY_REMOVE = "key-remove"
    RECOVERY_KIT = "recovery-kit"


class Runs(Struct, frozen=True):
    """The runs on record, newest first."""

    runs: Sequence[Run]


def status(context: typer.Context) -> int:
    """Say how the backups are: healthy, at risk or failing, and why. Exits with 3 when failing."""
    this = session(context)
    report = this.run(lambda engine, _: status_of(engine), unfinished="Nothing was changed.")
    this.answer("status_reply:StatusReply.of", report, stood(report))
    return _FAILING if report.health == "failing" else 0


def history(
    context: typer.Context,
    *,
    verb: Annotated[VerbOnRecord | None, typer.Option(help="Only runs of this verb.")] = None,
    since: Annotated[str, typer.Option(help="A day or time, UTC unless it says so.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=20_000, help="At most this many.")] = 50,
) -> int:
    """List what was done, newest first: what, when, on which backup, who asked, how it ended."""
    this = session(context)
    first = moment(since, "--since")
    runs = this.run(
        lambda engine, _: engine.history.runs(verb=verb or "", since=first, limit=limit),
        unfinished="Nothing was changed.",
    )
    this.terminal.result(Runs(tuple(runs)), listed_runs(runs))
    return 0
