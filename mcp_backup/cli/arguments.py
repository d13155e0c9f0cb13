"""What people and agents type, put into the form the verbs expect.

Names of flags may have underscores or dashes, a switch may be followed by a word
(`--verify false`), lists are separated by commas, and the options of the whole program may stand
before or after the verb.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from mcp_backup.errors import UsageError

_OF_THE_PROGRAM = ("--json", "--verbose")
_OF_THE_PROGRAM_WITH_VALUE = ("--config",)
_SWITCHES = ("--verify", "--dry-run", "--yes", "--http", "--test", "--json", "--verbose")
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}
_WITH_NEGATION = ("--verify",)
FREE_FORM = "call"  # its flags are named by the tool that is called


def arranged(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb ("" if there is none) and all arguments in canonical order and spelling."""
    words = list(arguments)
    front: list[str] = []
    rest: list[str] = []
    verb = ""
    while words:
        word = words.pop(0)
        if word == "--":
            rest += [word, *words]
            break
        name, equals, value = _spelled(word)
        if name in _OF_THE_PROGRAM_WITH_VALUE:
            front += [name, value] if equals else [name, *words[:1]]
            words = words if equals else words[1:]
        elif name.startswith("--") and verb != FREE_FORM:
            truth, words = _truth(name, value, words, inline=bool(equals))
            switch = [name + equals + value] if truth is None else _switched(name, on=truth)
            (front if name in _OF_THE_PROGRAM else rest).extend(switch)
        elif name in _OF_THE_PROGRAM:
            front.append(name)
        else:
            verb = verb or ("" if word.startswith("-") else word)
            rest.append(word)
    return verb, front + rest


def _spelled(word: str) -> tuple[str, str, str]:
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        return word, "", ""
    return name.replace("_", "-"), equals, value


def _truth(
    name: str, value: str, words: list[str], *, inline: bool
) -> tuple[bool | None, list[str]]:
    """Read the word after a switch, if it is one; None when there is none to read."""
    if name not in _SWITCHES:
        return None, words
    if inline:
        return _WORDS.get(value.lower()), words
    if words and words[0].lower() in _WORDS:
        return _WORDS[words[0].lower()], words[1:]
    return None, words


def _switched(name: str, *, on: bool) -> list[str]:
    if on:
        return [name]
    return [f"--no-{name[2:]}"] if name in _WITH_NEGATION else []


def separated(values: Iterable[str] | None) -> tuple[str, ...]:
    """Split values at commas, dropping what is empty."""
    return tuple(
        part for value in values or () for part in map(str.strip, value.split(",")) if part
    )


def moment(text: str, flag: str) -> datetime | None:
    """Read a day or a time in ISO 8601; UTC unless it says otherwise, None for "".

    Raises:
        UsageError: it is neither.
    """
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{flag} {text!r} is not a day or a time",
            hint="Write it like 2026-11-22 or 2026-11-22T18:30:00Z.",
        ) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
