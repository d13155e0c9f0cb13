"""restore, approve, undo: what changes live data, and so asks a person first."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from msgspec import Struct

from mcp_backup import terminal_reports
from mcp_backup.cli.arguments import separated
from mcp_backup.cli.backups import BackupId, BackupIdFlag
from mcp_backup.cli.passphrase import prove_person
from mcp_backup.cli.session import Session, session
from mcp_backup.errors import (
    ApprovalRefused,
    ApprovalRequired,
    HistoryUnusable,
    RestoreDeclined,
    UsageError,
)
from mcp_backup.progress import Listener
from mcp_backup.sources.source import Component
from mcp_backup.terminal import moment
from mcp_backup.verbs_restores import RestorePlan, RestoreRequest, UndoPoint

if TYPE_CHECKING:
    from mcp_backup.engine import Engine

_UNTOUCHED = "Nothing live was touched."
_NEVER_SPLIT = (
    "Live data is as it was before, or fully exchanged, never in between; an exchange that was "
    "under way is finished or taken back by the next command. `mcp-backup undo` lists what can "
    "be undone."
)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


class UndoPoints(Struct, frozen=True):
    """The restores that can be undone."""

    restores: Sequence[UndoPoint]


def restore(  # noqa: PLR0913 - one parameter per flag
    context: typer.Context,
    backup: BackupId = "latest",
    *,
    backup_id: BackupIdFlag = "",
    components: Annotated[
        list[str] | None, typer.Option(help="databases, config, or both: separated by commas.")
    ] = None,
    databases: Annotated[
        list[str] | None, typer.Option(help="Only these databases: names, separated by commas.")
    ] = None,
    target: Annotated[
        Literal["original", "scratch"],
        typer.Option(help="original: over the live data; scratch: beside it, to look at."),
    ] = "original",
    plan_id: Annotated[str, typer.Option(help="Do what this plan says.", metavar="PLAN")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
    yes: Yes = False,
) -> int:
    """Give a backup's data back, after showing what that would do and asking.

    Without a terminal and without --yes it prints the plan and exits with 5.
    """
    this = session(context)
    request = RestoreRequest(
        backup_id or backup, _components(components), separated(databases), target
    )
    plan = this.run(
        lambda engine, _: engine.plan(plan_id) if plan_id else engine.plan_restore(request),
        unfinished=_UNTOUCHED,
    )
    if dry_run:
        _show(this, plan)
        return 0
    if plan.target == "original" and not (plan_id and plan.approved):
        with _refusal_on_record(this, "approve", plan.plan_id):
            _agree(this, plan, yes=yes)
            _approve(this, plan)
    report = this.run(
        lambda engine, listener: engine.restore(plan.plan_id, listener), unfinished=_NEVER_SPLIT
    )
    this.answer("replies:RestoreReply.done", report, terminal_reports.restored(report))
    return 0


def approve(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(help="The plan's id.", metavar="PLAN")],
    *,
    yes: Yes = False,
) -> int:
    """Show a plan that an agent made, and let a person agree to it."""
    this = session(context)
    seen = agreed_plan(this, plan, yes=yes)
    if seen.undoes:
        agent, person = f"undo_restore with restore_id={seen.undoes}", f"undo {seen.undoes}"
    else:
        agent = f"restore_backup with plan_id={seen.plan_id}"
        person = f"restore --plan-id {seen.plan_id}"
    lines = [
        f"plan {seen.plan_id} is approved until {moment(seen.expires)}",
        f"next: the agent calls {agent}; or mcp-backup {person}",
    ]
    this.answer("replies:RestoreReply.planned", seen, lines)
    return 0


def agreed_plan(this: Session, plan_id: str, *, yes: bool = False) -> RestorePlan:
    """Show a plan, have the person agree to it, and put that on record.

    Raises:
        UnknownPlan: it is not among this machine's.
        ApprovalRequired: there is nobody to ask; the plan was printed.
        RestoreDeclined: they did not agree.
    """
    seen = this.run(lambda engine, _: engine.plan(plan_id), unfinished=_UNTOUCHED)
    if seen.approved:
        return seen
    with _refusal_on_record(this, "approve", plan_id):
        _agree(this, seen, yes=yes)
        return _approve(this, seen)


def undo(
    context: typer.Context,
    restore: Annotated[
        str, typer.Argument(help="The restore's id; without, list them.", metavar="[RESTORE_ID]")
    ] = "",
    *,
    restore_id: Annotated[
        str, typer.Option("--restore-id", help="The same, as a flag.", metavar="ID")
    ] = "",
    show: Annotated[bool, typer.Option("--list", help="List what can be undone.")] = False,
    yes: Yes = False,
) -> int:
    """Put live data back as it was before a restore."""
    this = session(context)
    wanted = restore_id or restore
    points = this.run(lambda engine, _: engine.restores(), unfinished=_UNTOUCHED)
    if show or not wanted:
        this.terminal.result(UndoPoints(tuple(points)), terminal_reports.undo_points(points))
        return 0
    agreed = yes or _agreed_to_undo(
        this, wanted, [point for point in points if point.restore_id == wanted]
    )
    if agreed:
        with _refusal_on_record(this, "undo", wanted):
            prove_person(this, f"undo {wanted}")
    report = this.run(
        lambda engine, listener: engine.undo(wanted, listener, consent=agreed),
        unfinished=_NEVER_SPLIT,
    )
    this.answer("replies:UndoReply.of", report, terminal_reports.undone(report))
    return 0


@contextmanager
def _refusal_on_record(this: Session, verb: str, subject: str) -> Iterator[None]:
    """Put it into the history when a person, or whoever plays one, is not believed or says no."""
    try:
        yield
    except (ApprovalRefused, RestoreDeclined) as error:
        refused = error  # the name `error` ends with this block

        async def note(engine: "Engine", _: Listener) -> None:
            try:
                run = await engine.history.begin(verb, subject=subject)
                message = str(refused)
                await engine.history.end(run, "failed", error_code=refused.code, message=message)
            except HistoryUnusable as problem:
                this.terminal.note(f"not put on record: {problem}")

        this.run(note, unfinished=_UNTOUCHED)
        raise


def _components(values: Sequence[str] | None) -> tuple[Component, ...]:
    names = separated(values)
    known = [component.value for component in Component]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--components {name!r} is none of {', '.join(known)}",
                hint=f"Use one or more of these, separated by commas. {_UNTOUCHED}",
            )
    return tuple(Component(name) for name in names)


def _show(this: Session, plan: RestorePlan) -> None:
    this.answer("replies:RestoreReply.planned", plan, terminal_reports.planned(plan))


def _agree(this: Session, plan: RestorePlan, *, yes: bool) -> None:
    """Show the plan and have the person type what they are about to overwrite.

    Raises:
        ApprovalRequired: there is nobody to ask, or they typed something else.
    """
    if yes:
        return
    if not this.terminal.has_person:
        _show(this, plan)
        raise ApprovalRequired(plan.plan_id)
    for line in (*terminal_reports.planned(plan), ""):
        this.terminal.note(line)
    names = [target.source for target in plan.targets]
    word = names[0] if len(names) == 1 else f"all {len(names)}"
    if _ask(this, f"Type {word!r} to go on, anything else to stop:") != word:
        raise RestoreDeclined(f"plan {plan.plan_id}")


def _approve(this: Session, plan: RestorePlan) -> RestorePlan:
    prove_person(this, f"approve {plan.plan_id}")
    by = f"{this.surroundings.user}, at a terminal"
    return this.run(lambda engine, _: engine.approve(plan.plan_id, by), unfinished=_UNTOUCHED)


def _agreed_to_undo(this: Session, restore_id: str, points: Sequence[UndoPoint]) -> bool:
    """Ask the person, if there is one and something to undo; else what was approved counts.

    Raises:
        RestoreDeclined: they were asked, and did not say yes.
    """
    if not points or not this.terminal.has_person:
        return False
    sources = ", ".join(name for point in points for name in point.sources)
    this.terminal.note(f"This takes back restore {restore_id} of: {sources}.")
    if _ask(this, "What was written since is lost. Type 'undo' to go on:") != "undo":
        raise RestoreDeclined(f"the undo of {restore_id}")
    return True


def _ask(this: Session, question: str) -> str:
    return this.interruptible(lambda: this.terminal.ask(question), unfinished=_UNTOUCHED)
