"""runbook: the pages for the worst day, printed for this installation, or walked through."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.cli.arguments import separated
from mcp_backup.cli.session import Session, session
from mcp_backup.drill_facts import SCENARIOS, DrillReport, DrillRequest
from mcp_backup.errors import BackupError, UsageError
from mcp_backup.place import utc_now
from mcp_backup.proof.drill import drill
from mcp_backup.proof.walks import last_walk, read_walks
from mcp_backup.recording import record_walk
from mcp_backup.runbook.filling import of_engine, of_settings, of_walks, of_words, refuse_stranger
from mcp_backup.runbook.pages import OTHER_PAGES, SCENARIO_PAGES, Page, filled, page, timed
from mcp_backup.runbook.shell import shell
from mcp_backup.runbook.walking import Walk, Walker, keep_record, known, lines_of
from mcp_backup.settings import Settings, load_settings
from mcp_backup.terminal_drills import drilled

_DIFFERENT = 3

Action = Literal["list", "print", "tabletop", "drill", "live"]


class Printed(Struct, frozen=True):
    """A page, filled in."""

    page: str
    text: str


class Walked(Struct, frozen=True):
    """A walk, and the drill that went with it."""

    walk: Walk
    drill: DrillReport | None = None


def runbook(  # noqa: PLR0913 - one parameter per flag
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="What to do with the page.")] = "list",
    name: Annotated[str, typer.Argument(help="The page.", metavar="[PAGE]")] = "",
    *,
    source: Annotated[str, typer.Option(help="The source it is about.")] = "",
    backup: Annotated[str, typer.Option(help="The backup to restore; the newest by default.")] = "",
    value: Annotated[
        list[str] | None,
        typer.Option(help="What stands for a placeholder: table=notes.", metavar="NAME=VALUE"),
    ] = None,
    when: Annotated[
        list[str] | None, typer.Option(help="Sections that apply: data-gone, rollback, ...")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="live: do not ask.")] = False,
) -> int:
    """Print a page with this installation's paths and ids, or walk through it step by step.

    list       the pages
    print      one of them, filled in
    tabletop   read the steps aloud and say what you would do; nothing is run
    drill      run what only looks, show what would change live data, restore into scratch
    live       run everything, compare with the page, ask before live data is changed

    Exits with 3 where something did not look as printed.
    """
    this = session(context)
    if action == "list":
        pages = [page(each) for each in (*SCENARIO_PAGES, *OTHER_PAGES)]
        lines = [f"{each.name:20} {each.title}" for each in pages]
        this.terminal.result([Printed(each.name, each.title) for each in pages], lines)
        return 0
    chosen = page(name)
    values = _values(this, chosen, source, backup) | of_words(_pairs(value or []))
    if action == "print":
        text = timed(filled(chosen.text, values), _times(this, chosen))
        this.terminal.result(Printed(chosen.name, text), text.splitlines())
        return 0
    if action != "tabletop":
        refuse_stranger(chosen, values)
    applies = frozenset(separated(when))
    return _walk(this, chosen, Walker(this.terminal, values, action, utc_now, yes, applies))


def _walk(this: Session, chosen: Page, walker: Walker) -> int:
    around = this.surroundings
    walk = walker.begun(chosen)
    try:
        with shell(around.cwd, around.environ) as inner:
            this.interruptible(
                lambda: walker.walk(chosen, inner, walk),
                unfinished="The step under way may be half done; look at the page's rollback.",
            )
    finally:
        _keep(this, walker.values, walk)
    try:
        report = _drilled(this, chosen) if walker.mode == "drill" else None
    except BackupError:  # the walk is told all the same
        this.terminal.result(Walked(walk), lines_of(walk))
        raise
    lines = lines_of(walk) + (["", *drilled(report)] if report else [])
    this.terminal.result(Walked(walk, report), lines)
    return 0 if walk.complete and (report is None or report.ok) else _DIFFERENT


def _keep(this: Session, values: Mapping[str, str], walk: Walk) -> None:
    """Keep a walk's times: beside the settings' state, which needs little, and in the history."""
    try:
        settings = _settings_after(this, values)
        keep_record(settings.state_dir, walk)
    except (BackupError, OSError) as error:
        this.terminal.note(f"the times were not kept: {error}")
        return
    found = Session(replace(this.surroundings, config=settings.file or this.surroundings.config))
    try:
        found.run(
            lambda engine, _: record_walk(engine.history, walk.report()),
            unfinished="The walk is over; its times are kept.",
        )
    except BackupError as error:
        this.terminal.note(f"the times were kept, but not in the history: {error}")


def _settings_after(this: Session, values: Mapping[str, str]) -> Settings:
    """Return the settings, which the walk itself may have brought back."""
    try:
        return this.settings()
    except BackupError:
        if not values.get("config"):
            raise
        around = this.surroundings
        return load_settings(Path(values["config"]), around.environ, around.cwd)


def _drilled(this: Session, chosen: Page) -> DrillReport | None:
    scenario = next((each.name for each in SCENARIOS if each.name == chosen.name), None)
    if scenario is None:
        return None
    return this.run(
        lambda engine, listener: drill(engine, DrillRequest(scenario=scenario), listener),
        unfinished="Nothing live was touched.",
    )


def _times(this: Session, chosen: Page) -> Mapping[str, float]:
    """Return what each section took in the last walk that ran its commands."""
    try:
        walk = last_walk(read_walks(this.settings().state_dir), chosen.name)
    except BackupError:
        return {}
    return walk.sections if walk else {}


def _values(this: Session, chosen: Page, source: str, backup: str) -> dict[str, str]:
    """Return what can be told of this installation: on the worst day, not much."""
    values = {"rescue": str(Path(this.surroundings.cwd) / "rescued")}
    try:
        settings = this.settings()
    except BackupError as error:
        this.terminal.note(f"no settings, so fill in <names> by hand: {error}")
        return values
    values |= of_settings(settings, source) | of_walks(settings, chosen.name)
    try:
        values |= known(
            this.run(
                lambda engine, _: of_engine(engine, source, backup),
                unfinished="Nothing was changed.",
            )
        )
    except UsageError:
        raise
    except BackupError as error:
        this.terminal.note(f"the repository does not open, so ids are missing: {error}")
    return values


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r:.60} is no NAME=VALUE", hint="Write --value table=notes.")
        pairs[name] = text
    return pairs
