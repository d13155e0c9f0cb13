"""Walking through a page, step by step and against the clock.

tabletop   nothing is run: the steps are read aloud, and people say what they would do
drill      what only looks is run and compared; what changes live data, or looks as printed on
           a broken system only, is shown. A drill of the scenario restores into scratch
live       everything is run and compared; what changes live data is asked about first
"""

import json
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Literal, Protocol

from msgspec import Struct, field

from mcp_backup.drill_facts import WalkReport
from mcp_backup.errors import RestoreDeclined
from mcp_backup.proof.walks import FILE
from mcp_backup.record import asdict
from mcp_backup.runbook.matching import matched
from mcp_backup.runbook.pages import Block, Command, Page, Section, filled
from mcp_backup.runbook.shell import Ran, Shell

Mode = Literal["tabletop", "drill", "live"]
Outcome = Literal["as printed", "different", "talked through", "not run"]
OWN_WORDS = frozenset(("stop", "start", "check"))  # commands themselves, so never quoted
_SHOWN = 60  # lines of output that was not as printed


class Person(Protocol):
    """Who is walked through a page."""

    @property
    def has_person(self) -> bool:
        """Whether somebody is there to answer."""

    def note(self, text: str) -> None:
        """Show a line."""

    def ask(self, question: str) -> str:
        """Return the answer to a question."""


class Step(Struct, frozen=True):
    """One command, or one section at the table: what became of it, and how long it took."""

    section: str
    block: int
    command: str
    outcome: Outcome
    seconds: float
    why: str = ""


class Walk(Struct):
    """A walk through a page. It is `complete` when it came to the end with all as printed."""

    page: str
    mode: Mode
    started: datetime
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = False

    def report(self) -> WalkReport:
        """Tell it in short."""
        last = self.steps[-1] if self.steps else None
        different = last is not None and last.outcome == "different"
        where = f"after {last.section}" if last else "before its first step"
        if last and different:
            where = f"in {last.section}: {last.why}"
        return WalkReport(
            self.page,
            self.mode,
            self.started,
            self.seconds,
            len(self.steps),
            self.complete,
            different,
            "" if self.complete else f"stopped {where}",
        )


class Walker(Struct, frozen=True):
    """Takes a person, or nobody with `yes`, through a page.

    `applies` names the sections to which `when=` blocks belong that are to be walked as well.
    """

    person: Person
    values: dict[str, str]
    mode: Mode
    now: Callable[[], datetime]
    yes: bool = False
    applies: Collection[str] = ()

    def begun(self, page: Page) -> Walk:
        """Return a walk that begins now."""
        return Walk(page.name, self.mode, self.now())

    def walk(self, page: Page, shell: Shell, begun: Walk | None = None) -> Walk:
        """Walk; stops at the first step that is not as printed. What was `begun` is filled in.

        Raises:
            RestoreDeclined: a person was asked before a change, and did not say yes, or there is
                nobody to ask.
        """
        walk, began = begun or self.begun(page), monotonic()
        try:
            for section in page.sections:
                for step in self._section(page, section, shell):
                    walk.steps.append(step)
                    if step.outcome == "different":
                        return walk
            walk.complete = True
        finally:
            walk.seconds = round(monotonic() - began, 3)
        return walk

    def _section(self, page: Page, section: Section, shell: Shell) -> Iterator[Step]:
        began = monotonic()
        if section.parts:
            self.person.note("")
            self.person.note(f"== {section.title}")
        for part in section.parts:
            if isinstance(part, str):
                self._show(part)
            elif self._chosen(part):
                yield from self._block(page, section, part, shell)
        if self.mode == "tabletop" and section.parts:
            answer = self._asked("Said? Enter to go on, or a note to keep:")
            taken = round(monotonic() - began, 3)
            yield Step(section.title, 0, "", "talked through", taken, answer)

    def _chosen(self, block: Block) -> bool:
        if not block.when or block.when in self.applies:
            return True
        if self.mode != "live" or self.yes or not self.person.has_person:
            return False
        return self._asked(f"Does this apply: {block.when}? [y/N]").lower() in ("y", "yes")

    def _block(self, page: Page, section: Section, block: Block, shell: Shell) -> Iterator[Step]:
        for command in block.commands:
            self._show(f"  $ {self._text(command)}")
        if self.mode == "tabletop":
            return
        if self.mode == "drill" and (block.changes or block.broken):
            why = "it changes live data" if block.changes else "nothing is broken"
            yield self._left(section, block, why)
            return
        if block.changes:
            self._agree(page, block)
        for command in block.commands:
            if missing := command.needs() - {name for name in self.values if self.values[name]}:
                if self.mode == "drill":
                    yield self._left(section, block, f"not known yet: {', '.join(sorted(missing))}")
                    return
                why = f"no value for {', '.join(sorted(missing))}; give it with --value NAME=VALUE"
                yield Step(section.title, block.number, command.text, "different", 0.0, why)
                return
            step = self._run(section, block, command, shell)
            yield step
            if step.outcome == "different":
                return

    def _left(self, section: Section, block: Block, why: str) -> Step:
        self.person.note(f"  (not run: {why})")
        return Step(section.title, block.number, block.text, "not run", 0.0, why)

    def _agree(self, page: Page, block: Block) -> None:
        if self.yes:
            return
        subject = f"block {block.number} of {page.name}, which changes live data"
        if not self.person.has_person:
            raise RestoreDeclined(f"{subject}; nobody is there to ask")
        if self._asked("This changes live data. Run it? [yes/N]").lower() != "yes":
            raise RestoreDeclined(subject)

    def _run(self, section: Section, block: Block, command: Command, shell: Shell) -> Step:
        text = self._text(command)
        ran = shell.run(text)
        why = self._difference(command, ran)
        for line in ran.output.rstrip().splitlines()[-_SHOWN:]:
            self.person.note(f"  {line}")
        if why:
            self.person.note(f"  NOT AS PRINTED: {why}")
            for line in command.expected:
                self.person.note(f"  expected: {filled(line, self.values)}")
        outcome: Outcome = "different" if why else "as printed"
        return Step(section.title, block.number, text, outcome, ran.seconds, why)

    def _difference(self, command: Command, ran: Ran) -> str:
        if ran.exit_code != command.exit_code:
            return f"it ended with {ran.exit_code}, and the page says {command.exit_code}"
        if (found := matched(command.expected, ran.output, self.values)) is None:
            return "its output is not what the page says"
        self.values.update(found)
        return ""

    def _text(self, command: Command) -> str:
        quoted = {
            name: value if name in OWN_WORDS else shlex.quote(value)
            for name, value in self.values.items()
            if value
        }
        return filled(command.text, quoted)

    def _show(self, line: str) -> None:
        self.person.note(filled(line, self.values))

    def _asked(self, question: str) -> str:
        return self.person.ask(question) if self.person.has_person and not self.yes else ""


def keep_record(state: Path, walk: Walk) -> None:
    """Append a walk to `runbook.jsonl` in the state directory. Blocks.

    Raises:
        OSError: it cannot be written.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = json.dumps(asdict(walk), default=str, ensure_ascii=False) + "\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with open(os.open(state / FILE, flags, 0o600), "ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def lines_of(walk: Walk) -> list[str]:
    """Word a walk: what was done, how long it took, and where it stopped."""
    lines = [
        f"{step.seconds:8.1f} s  {step.outcome:14}  {step.section}"
        + (f", block {step.block}" if step.block else "")
        + (f": {step.why}" if step.why else "")
        for step in walk.steps
    ]
    end = "to its end" if walk.complete else "NOT TO ITS END"
    return [*lines, f"{walk.page}, {walk.mode}: {end}, in {walk.seconds:.1f} s"]


def known(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values that are there."""
    return {name: value for name, value in values.items() if value}
