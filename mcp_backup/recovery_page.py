"""The recovery kit as a page: plain text, or HTML that needs nothing but itself; and back.

Both say the same, line by line, so that a page that was typed off paper can be read as well as
the file. What a reader needs stands in lines of the form `Label: value`.
"""

import hashlib
import hmac
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape, unescape

from msgspec import Struct

from mcp_backup.errors import UsageError

_SHOWN_SOURCES = 16  # more would not leave it one page
_LONGEST = 4096  # characters of a value, as of a path
_CODE_DIGITS = 8
_LABELS = {
    "location": "Repository",
    "repository_id": "Repository id",
    "password": "Password",
    "key_id": "Key",
    "code": "Check code",
    "made": "Made",
    "hostname": "Made on",
}
_TAG = re.compile(r"<[^<>]*>")


class KitSource(Struct, frozen=True):
    """One source: where it lies in a snapshot, and where it was taken from."""

    tree: str
    original: str


@dataclass(frozen=True, slots=True)
class Kit:
    """What is on the page. `sources` are for people; they are not read back."""

    location: str
    repository_id: str
    password: str = field(repr=False)
    key_id: str
    made: datetime
    hostname: str
    sources: tuple[KitSource, ...] = ()

    @property
    def code(self) -> str:
        """The check code: what `sha256sum` makes of the password, cut short."""
        return hashlib.sha256(self.password.encode()).hexdigest()[:_CODE_DIGITS]


class _Section(Struct, frozen=True):
    """A heading, and lines of prose or of commands."""

    title: str
    lines: Sequence[str]
    commands: bool = False


def text_page(kit: Kit) -> str:
    """Lay the kit out as text."""
    lines = [_TITLE.upper(), "=" * len(_TITLE), "", *_WARNING, ""]
    lines += [f"{label}: {value}" for label, value in _facts(kit)]
    for section in _sections(kit):
        lines += ["", section.title, "-" * len(section.title)]
        lines += [f"  {line}" if section.commands else line for line in section.lines]
    return "\n".join(lines) + "\n"


def html_page(kit: Kit) -> str:
    """Lay the kit out as one HTML document without scripts, links or pictures."""
    facts = "\n".join(
        f"<tr><th>{label}: </th><td><code>{escape(value)}</code></td></tr>"
        for label, value in _facts(kit)
    )
    sections = "\n".join(_html_section(section) for section in _sections(kit))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>{_TITLE}</h1>\n"
        f"<p>{escape(' '.join(_WARNING))}</p>\n<table>\n{facts}\n</table>\n{sections}\n"
        "</body></html>\n"
    )


def parse_page(page: str) -> Kit:
    """Take a kit off its page, text or HTML, as written by us or typed off paper.

    Raises:
        UsageError: a line is missing or cannot be meant, or the password was mistyped.
    """
    html = page.lstrip().lower().startswith(("<!doctype", "<html"))
    lines = [unescape(_TAG.sub("", line)) if html else line for line in page.splitlines()]
    facts = {name: _found(lines, label) for name, label in _LABELS.items()}
    code = facts["code"].lower()
    try:
        made = datetime.fromisoformat(facts["made"])
    except ValueError as error:
        raise _not_a_kit(f"its date is none: {error}") from error
    kit = Kit(
        location=facts["location"],
        repository_id=facts["repository_id"],
        password=facts["password"],
        key_id=facts["key_id"],
        made=made,
        hostname=facts["hostname"],
    )
    if not hmac.compare_digest(kit.code.encode(), code.encode(errors="replace")):
        raise UsageError(
            f"the password on the page makes check code {kit.code}, and the page says {code:.20}",
            hint="Compare both with the printed page, character by character: 0 and O, 1, l and I.",
        )
    return kit


def _found(lines: Sequence[str], label: str) -> str:
    for line in lines:
        name, colon, value = line.strip().partition(":")
        if colon and name == label and 0 < len(value.strip()) <= _LONGEST:
            return value.strip()
    raise _not_a_kit(f"it has no line `{label}: ...`")


def _not_a_kit(why: str) -> UsageError:
    return UsageError(
        f"this is no recovery kit: {why}",
        hint="Use the page that `mcp-backup key recovery-kit --out FILE` wrote.",
    )


def _facts(kit: Kit) -> Iterator[tuple[str, str]]:
    for name, label in _LABELS.items():
        value = kit.made.isoformat() if name == "made" else getattr(kit, name)
        yield label, _printable(value)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


_TITLE = "mcp-backup recovery kit"
_WARNING = (
    "Print this page, keep it away from the machine, and delete the file. Whoever has it can",
    "read every backup; without it, or the password, nobody can.",
)
_STYLE = (
    "body{font:10pt/1.35 sans-serif;max-width:46em;margin:1.5em auto;padding:0 1em}"
    "h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:1em 0 .2em}"
    "code,pre{font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}"
    "th{text-align:left;padding-right:1em;white-space:nowrap;vertical-align:top}"
    "pre{background:#f2f2f2;padding:.4em .6em}@page{margin:14mm}"
)


def _sections(kit: Kit) -> list[_Section]:
    return [
        _Section("1. Get restic", _GET),
        _Section(
            "2. Open the repository (or a copy of it: change the first line)",
            _open(kit),
            commands=True,
        ),
        _Section("3. Restore everything into ./restored", _RESTORE, commands=True),
        _Section("4. What is in a snapshot", _layout(kit)),
        _Section("5. Put a database back", _PUT_BACK),
    ]


_GET = (
    "restic 0.14 or newer opens the repository; mcp-backup is not needed.",
    "From https://restic.net, or: apt install restic, or: brew install restic",
)
_RESTORE = (
    "restic restore latest --tag mcp-backup --target ./restored",
    "# one file:  restic dump latest /databases/NAME/FILE > FILE",
    '# an older backup: an id that "restic snapshots" shows, in place of "latest"',
)
_PUT_BACK = (
    "Stop what uses it. Move FILE, FILE-wal and FILE-shm away together. Copy the restored FILE to",
    "where it was, and start again.",
)


def _open(kit: Kit) -> list[str]:
    return [
        f"export RESTIC_REPOSITORY={shlex.quote(kit.location)}",
        f"export RESTIC_PASSWORD={shlex.quote(kit.password)}",
        "# this prints the check code if the password is typed right:",
        f'printf %s "$RESTIC_PASSWORD" | sha256sum | cut -c1-{_CODE_DIGITS}',
        "restic snapshots --tag mcp-backup",
        "restic check --read-data",
    ]


def _layout(kit: Kit) -> list[str]:
    lines = [
        "databases/NAME/FILE  one database each, whole, ready to open",
        "config/NAME/...      files of settings, below the directory they were read from",
        "workflows/NAME/...   documents of other servers, one JSON file each",
        "manifest.json        for each file: its original path, size and digest",
    ]
    if kit.sources:
        lines += ["", "When this page was made:"]
    shown = kit.sources[:_SHOWN_SOURCES]
    lines += [f"{source.tree}  from {_printable(source.original)}" for source in shown]
    more = len(kit.sources) - _SHOWN_SOURCES
    return lines + ([f"and {more} more; manifest.json has them all"] if more > 0 else [])


def _html_section(section: _Section) -> str:
    body = "\n".join(escape(line) for line in section.lines)
    return f"<h2>{escape(section.title)}</h2>\n<pre>{body}</pre>"
