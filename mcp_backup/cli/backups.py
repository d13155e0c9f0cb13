"""create, list, verify, check: making backups, and what can be said of those there are."""

from typing import Annotated, Literal

import typer

from mcp_backup import terminal_reports
from mcp_backup.cli.arguments import moment, separated
from mcp_backup.cli.session import session
from mcp_backup.verbs import BackupType, CreateRequest, Level

FINDINGS = 3

BackupId = Annotated[
    str, typer.Argument(help="A backup's id, a snapshot's id, or latest.", metavar="[BACKUP_ID]")
]
BackupIdFlag = Annotated[
    str, typer.Option("--backup-id", help="The same, as a flag.", metavar="ID")
]


def create(
    context: typer.Context,
    *,
    backup_type: Annotated[
        BackupType, typer.Option(help="What to back up; full reads every source whole.")
    ] = BackupType.FULL,
    databases: Annotated[
        list[str] | None, typer.Option(help="Only these databases: names, separated by commas.")
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Read everything back before calling it done.")
    ] = True,
    note: Annotated[str, typer.Option(help="A sentence to keep with the backup.")] = "",
) -> int:
    """Back up now. Exits with 3 when a source failed, or its copy looks damaged or shrunken."""
    this = session(context)
    request = CreateRequest(backup_type, separated(databases), verify, note)
    report = this.run(
        lambda engine, listener: engine.create(request, listener),
        unfinished="No backup was added. What was already stored is used by the next one, "
        "or removed by `mcp-backup prune`.",
    )
    this.answer("replies:BackupReply.of", report, terminal_reports.created(report))
    whole = report.status == "completed" and report.verification != "findings"
    return 0 if whole and not report.suspect else FINDINGS


def list_backups(  # noqa: PLR0913 - one parameter per flag
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 20,
    cursor: Annotated[str, typer.Option(help="Go on where an earlier list ended.")] = "",
    source: Annotated[str, typer.Option(help="Only backups that hold this source.")] = "",
    backup_type: Annotated[
        BackupType | None, typer.Option(help="Only backups of this type.")
    ] = None,
    since: Annotated[str, typer.Option(help="A day or time, UTC unless it says so.")] = "",
    until: Annotated[str, typer.Option(help="A day or time, UTC unless it says so.")] = "",
) -> int:
    """List backups, newest first."""
    this = session(context)
    first, last = moment(since, "--since"), moment(until, "--until")
    page = this.run(
        lambda engine, _: engine.backups(
            limit=limit,
            cursor=cursor,
            source=source,
            backup_type=backup_type or "",
            since=first,
            until=last,
        ),
        unfinished="Nothing was changed.",
    )
    this.answer("list_reply:BackupsReply.of", page, terminal_reports.listed(page))
    return 0


def verify(
    context: typer.Context,
    backup: BackupId = "latest",
    *,
    backup_id: BackupIdFlag = "",
    level: Annotated[
        Level,
        typer.Option(
            help="structure: everything is there; data: every byte is read back; "
            "restore: rebuilt in scratch and examined."
        ),
    ] = Level.DATA,
) -> int:
    """Prove that a backup is what its sources were. Exits with 3 when it is not."""
    this = session(context)
    report = this.run(
        lambda engine, listener: engine.verify(backup_id or backup, level, listener),
        unfinished="Nothing was changed.",
    )
    this.answer("replies:VerifyReply.of", report, terminal_reports.verified(report))
    return 0 if report.ok else FINDINGS


def check(
    context: typer.Context,
    *,
    level: Annotated[
        Literal["structure", "data"],
        typer.Option(help="structure: everything referred to is there; data: and is intact."),
    ] = "structure",
) -> int:
    """Look for damage in the repository. Exits with 3 when there is some."""
    this = session(context)
    report = this.run(
        lambda engine, listener: engine.check(Level(level), listener),
        unfinished="Nothing was changed.",
    )
    this.terminal.result(report, terminal_reports.checked(report))
    return 0 if report.ok else FINDINGS
