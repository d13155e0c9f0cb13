"""The terminal: results on stdout, everything else on stderr, questions only to a person.

With `json`, results are one JSON document on stdout and errors one on stderr, so that a program
can read either; without, both are for people. Tables are never cut to the window's width: ids are
made to be copied. Whatever is printed for people is printable: names come from strangers.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TextIO

import msgspec
from msgspec import Struct

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_RED, _PLAIN = "\033[31m", "\033[0m"


class Terminal(Struct, frozen=True):
    """Where one command reads and writes."""

    out: TextIO
    err: TextIO
    input: TextIO
    json: bool = False

    @property
    def has_person(self) -> bool:
        """Whether somebody is there to answer a question."""
        return not self.json and self.input.isatty() and self.err.isatty()

    @property
    def shows_progress(self) -> bool:
        """Whether moving bars are welcome on stderr."""
        return not self.json and self.err.isatty()

    def result(self, reply: object, lines: Sequence[str]) -> None:
        """Print a result: `reply` (a model or a record) for programs, `lines` for people."""
        if self.json:
            self.out.write(_encoded(reply) + "\n")
        else:
            self.out.write("".join(f"{_shown(line)}\n" for line in lines))
        self.out.flush()

    def note(self, text: str) -> None:
        """Tell a person something that is not the result; a program is not told."""
        if not self.json:
            self.err.write(f"{_shown(text)}\n")
            self.err.flush()

    def error(self, code: str, message: str, hint: str = "") -> None:
        """Say what went wrong, under which stable code, and what to do next."""
        if self.json:
            document = {"error": {"code": code, "message": message, "hint": hint}}
            self.err.write(json.dumps(document, ensure_ascii=False) + "\n")
        else:
            self.err.write(f"{self._red('error')} [{code}]: {_indented(message)}\n")
            if hint:
                self.err.write(f"  next: {_indented(hint)}\n")
        self.err.flush()

    def ask(self, question: str) -> str:
        """Ask the person, and return the line typed, stripped; "" at the end of input."""
        self.err.write(f"{_shown(question)} ")
        self.err.flush()
        return self.input.readline().strip()

    def agreed(self, question: str, *, default: bool) -> bool:
        """Ask the person a yes or no question; an empty line means `default`."""
        answer = self.ask(f"{question} [{'Y/n' if default else 'y/N'}]").lower()
        return default if not answer else answer in ("y", "yes")

    def _red(self, text: str) -> str:
        return f"{_RED}{text}{_PLAIN}" if self.err.isatty() else text


def table(*rows: Sequence[str]) -> list[str]:
    """Lay out rows of equal length in columns, as lines; the first is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def size(count: int) -> str:
    """Word a number of bytes, in powers of 1024."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{count / 1024**power:.1f} {_UNITS[power]}"


def seconds(duration: float) -> str:
    """Word a duration given in seconds."""
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(time: datetime) -> str:
    """Word a time to the second, in the zone it carries."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")


def count(number: int, thing: str) -> str:
    """Word a number of things: "1 file", "3 files"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _encoded(reply: object) -> str:
    """Return JSON: times as RFC 3339, paths as texts, enumerations as their values."""
    if (encode := getattr(reply, "model_dump_json", None)) is not None:
        return str(encode(indent=2))
    return msgspec.json.format(msgspec.json.encode(reply, enc_hook=str), indent=2).decode()


def _shown(text: str) -> str:
    """Replace what could move the cursor or rewrite the screen."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _indented(text: str) -> str:
    return "\n  ".join(map(_shown, text.splitlines()))
