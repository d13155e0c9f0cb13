"""Pages: Markdown with blocks of commands in it.

    ```console changes when=data-gone exit=3
    $ mcp-backup restore {{backup}} --yes
    restored {{source}}: …
    to take it back: mcp-backup undo {{undo?}}
    ```

Of a block's words, `changes` says that it changes live data, `broken` that it looks as printed on
a broken system only, `when=NAME` that it is for those to whom the section applies, and `exit=N`
how its last command ends. In the output, `…` stands for any text, alone on a line for any lines,
and `{{name?}}` for a word to remember as `name`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from mcp_backup.errors import UsageError

SCENARIO_PAGES = ("single-server", "database-corruption", "complete-failure", "data-loss")
OTHER_PAGES = ("without-us", "communication", "post-incident", "README")
_INSIDE = Path(__file__).parent / "printed"  # in a wheel
_BESIDE = Path(__file__).parent.parent.parent / "runbook"  # in a checkout
_FENCE = "```"
_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\??\}\}")


class Command(Struct, frozen=True):
    """One command and the output to expect, as printed."""

    text: str
    expected: tuple[str, ...]
    exit_code: int = 0

    def needs(self) -> set[str]:
        """Return the placeholders in the command."""
        return set(_PLACEHOLDER.findall(self.text))


class Block(Struct, frozen=True):
    """Commands that belong together. `number` counts a page's blocks from 1."""

    number: int
    commands: tuple[Command, ...]
    changes: bool = False
    broken: bool = False
    when: str = ""

    @property
    def text(self) -> str:
        """The commands, as they are copied."""
        return "\n".join(command.text for command in self.commands)


class Section(Struct, frozen=True):
    """A heading and what is below it, in order: lines of prose, and blocks."""

    title: str
    parts: tuple[str | Block, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The section's blocks."""
        return tuple(part for part in self.parts if isinstance(part, Block))


class Page(Struct, frozen=True):
    """One page of the runbook."""

    name: str
    title: str
    text: str
    sections: tuple[Section, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, in order."""
        return tuple(block for section in self.sections for block in section.blocks)

    def placeholders(self) -> set[str]:
        """Return the names of all placeholders on the page."""
        return set(_PLACEHOLDER.findall(self.text))


def page(name: str) -> Page:
    """Return a page by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in (*SCENARIO_PAGES, *OTHER_PAGES):
        raise UsageError(
            f"the runbook has no page {name!r:.60}",
            hint=f"There are: {', '.join((*SCENARIO_PAGES, *OTHER_PAGES))}.",
        )
    directory = _INSIDE if _INSIDE.is_dir() else _BESIDE
    return parse(name, (directory / f"{name}.md").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Page:
    """Read a page.

    Raises:
        UsageError: a block is not closed, or does not begin with a command.
    """
    title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), name)
    sections: list[Section] = []
    heading, parts, number = title, list[str | Block](), 0
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("## "):
            sections.append(Section(heading, tuple(parts)))
            heading, parts = line[3:], []
        elif line.startswith(f"{_FENCE}console"):
            number += 1
            body = _fenced(name, lines)
            parts.append(_block(name, number, line.removeprefix(_FENCE).split()[1:], body))
        elif not line.startswith("# "):
            parts.append(line)
    sections.append(Section(heading, tuple(parts)))
    return Page(name, title, text, tuple(sections))


def filled(text: str, values: Mapping[str, str]) -> str:
    """Put values in place of placeholders; what is not known stays as a name to look up."""

    def value(match: re.Match[str]) -> str:
        if match[0].endswith("?}}"):
            return f"<{match[1]}>"
        return values.get(match[1]) or f"<{match[1]}>"

    return _PLACEHOLDER.sub(value, text)


def timed(text: str, seconds: Mapping[str, float]) -> str:
    """Put below each heading how long its commands took, where that is known."""
    lines = []
    for line in text.splitlines():
        lines.append(line)
        taken = seconds.get(line[3:]) if line.startswith("## ") else None
        if taken is not None:
            lines += ["", f"(The commands here took {taken:.1f} s in the last walk.)"]
    return "\n".join(lines) + "\n"


def _fenced(name: str, lines: Iterator[str]) -> list[str]:
    body: list[str] = []
    for line in lines:
        if line.startswith(_FENCE):
            return body
        body.append(line)
    raise UsageError(f"page {name}: a block is not closed", hint="Add ``` below it.")


def _block(name: str, number: int, words: Sequence[str], body: Sequence[str]) -> Block:
    options = dict(word.partition("=")[::2] for word in words)
    commands: list[Command] = []
    for line in body:
        if line.startswith("$ "):
            commands.append(Command(line[2:], ()))
        elif line.startswith("> ") and commands and not commands[-1].expected:
            last = commands[-1]
            commands[-1] = Command(f"{last.text}\n{line[2:]}", ())
        elif commands:
            last = commands[-1]
            commands[-1] = Command(last.text, (*last.expected, line))
        else:
            raise UsageError(f"page {name}: block {number} begins with no command")
    if commands and "exit" in options:
        last = commands[-1]
        commands[-1] = Command(last.text, last.expected, int(options["exit"]))
    return Block(
        number,
        tuple(commands),
        changes="changes" in options,
        broken="broken" in options,
        when=options.get("when", ""),
    )
