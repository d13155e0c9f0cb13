"""forget, prune: what makes the repository smaller, and so shows first what would go."""

from typing import Annotated

import typer

from mcp_backup import forgetting, terminal_reports
from mcp_backup.cli.session import Session, session
from mcp_backup.terminal import count
from mcp_backup.verbs_upkeep import ForgetReport

_DECLINED = 5
_UNTOUCHED = "Nothing was dropped."
_UNFINISHED = (
    "Every backup that was not dropped is whole. What was under way is finished by the next "
    "`mcp-backup prune`."
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done and why; do nothing.")
]


def forget(
    context: typer.Context,
    *,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Drop the backups that retention does not keep, after showing them and asking; then prune.

    Without a terminal and without --yes it shows them and exits with 5.
    """
    this = session(context)
    agreed: frozenset[str] | None = None
    if not yes:
        plan = this.run(
            lambda engine, listener: forgetting.forget(engine, listener, dry_run=True),
            unfinished=_UNTOUCHED,
        )
        if dry_run or not plan.forgotten:
            this.terminal.result(plan, terminal_reports.forgotten(plan))
            return 0
        if not _agreed(this, plan):
            return _DECLINED
        agreed = frozenset(backup.snapshot_id for backup in plan.forgotten)
    report = this.run(
        lambda engine, listener: forgetting.forget(engine, listener, dry_run=dry_run, only=agreed),
        unfinished=_UNTOUCHED if dry_run else _UNFINISHED,
    )
    this.terminal.result(report, terminal_reports.forgotten(report))
    return 0


def prune(context: typer.Context, *, dry_run: DryRun = False) -> int:
    """Delete what no backup needs any more: after `forget`, or a backup that was interrupted."""
    this = session(context)
    report = this.run(
        lambda engine, listener: forgetting.prune(engine, listener, dry_run=dry_run),
        unfinished=_UNFINISHED,
    )
    this.terminal.result(report, terminal_reports.pruned(report))
    return 0


def _agreed(this: Session, plan: ForgetReport) -> bool:
    """Show the plan, and ask the person if there is one."""
    backups = count(len(plan.forgotten), "backup")
    if not this.terminal.has_person:
        this.terminal.result(plan, terminal_reports.forgotten(plan))
        this.terminal.error(
            "approval-required",
            f"a person has to agree to dropping {backups}",
            f"Run `mcp-backup forget --yes`, or in a terminal. {_UNTOUCHED}",
        )
        return False
    for line in (*terminal_reports.forgotten(plan), ""):
        this.terminal.note(line)
    question = f"Type 'forget' to drop {backups}, anything else to stop:"
    if this.interruptible(lambda: this.terminal.ask(question), unfinished=_UNTOUCHED) == "forget":
        return True
    this.terminal.note(_UNTOUCHED)
    return False
