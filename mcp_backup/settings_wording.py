"""What is wrong with the settings, in sentences.

Each names the file or the variable, the setting, what is expected and what was found. Values are
shown only where no secret can be: never whole tables, arguments, commands or a URL's user part.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from msgspec import Struct

from mcp_backup.errors import SettingsInvalid
from mcp_backup.settings_mistakes import NOTHING, Mistake, mistakes
from mcp_backup.settings_shape import paths
from mcp_backup.settings_table import Section

_MOST = 5  # mistakes told at once; more is a wall
_SECRET = {"password_command", "dsn", "arguments", "alerts"}
_USER_PART = re.compile(r"//[^/@\s]*@")


class Origin(Struct, frozen=True):
    """Where the settings came from: the file, if any, and what the environment put above it."""

    file: Path | None
    from_environment: Mapping[str, Any]

    def of(self, location: Sequence[str | int]) -> str:
        """Name the file or variable that holds the setting at `location`."""
        value: Any = self.from_environment
        for step in location:
            if not isinstance(value, Mapping) or step not in value:
                break
            value = value[step]
        else:
            if location:
                return "MCP_BACKUP_" + "__".join(str(step).upper() for step in location)
        return str(self.file or "the environment")


def refusal(
    values: Mapping[str, Any],
    kind: type[Section],
    origin: tuple[Path | None, Mapping[str, Any]] | None,
) -> SettingsInvalid | None:
    """Word all that keeps `values` from being a table of this kind as one error; `None` if nothing.

    Without an `origin` they are a program's, and no file and no variable is named.
    """
    found = mistakes(values, kind)
    if not found:
        return None
    named = Origin(*origin) if origin else None
    told = [_told(mistake, kind, named) for mistake in found[:_MOST]]
    facts = [fact for fact, _ in told]
    if len(found) > _MOST:
        facts.append(f"and {len(found) - _MOST} more")
    hints = dict.fromkeys(hint for _, hint in told if hint)  # each once, in order
    return SettingsInvalid(
        "; ".join(facts),
        hint=" ".join([*hints, "Correct it and run the command again; nothing was done."]),
    )


def unknown_variable(
    name: str, prefix: str, kind: type[Section], apart: Iterable[str]
) -> SettingsInvalid:
    """Word that the environment has a variable of ours that means nothing."""
    known = [prefix + path.upper().replace(".", "__") for path in paths(kind)] + sorted(apart)
    close = get_close_matches(name.upper(), known, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return SettingsInvalid(
        f"the environment variable {name} is not a setting",
        hint=f"{meant}Correct or unset it; nothing was done.",
    )


def _told(mistake: Mistake, kind: type[Section], origin: Origin | None) -> tuple[str, str]:
    where = f"{origin.of(mistake.place)}: " if origin else ""
    label = _label(mistake.place)
    hint = _nearest(mistake.place, kind) if mistake.unknown else ""
    return f"{where}{label}{' ' if label else ''}{mistake.sentence}{_got(mistake)}", hint


def _got(mistake: Mistake) -> str:
    value = mistake.value
    if value is NOTHING or isinstance(value, Section) or _SECRET.intersection(mistake.place):
        return ""
    if isinstance(value, Mapping):
        return ", got a table"
    if isinstance(value, list | tuple):
        return f", got a list of {len(value)}"
    if isinstance(value, bool):
        return f", got {str(value).lower()}"
    shown = repr(str(value) if isinstance(value, Path) else value)
    return f", got {_USER_PART.sub('//...@', shown):.80}"


def _label(location: Sequence[str | int]) -> str:
    """Return `repository.location`, or `databases[2].path` for the second of them."""
    label = ""
    for step in location:
        label += f"[{step + 1}]" if isinstance(step, int) else f".{step}"
    return label.lstrip(".")


def _nearest(location: Sequence[str | int], kind: type[Section]) -> str:
    *table, key = (step for step in location if isinstance(step, str))
    known = [path.split(".") for path in paths(kind)]
    siblings = [path[-1] for path in known if path[:-1] == table]
    anywhere = {path[-1]: ".".join(path) for path in reversed(known)}
    close = [".".join([*table, leaf]) for leaf in _close(key, siblings)] or [
        anywhere[leaf] for leaf in _close(key, anywhere)
    ]
    if "password" in key:
        return (
            "A password does not stand in the settings: use `repository.password_file`, "
            "`repository.password_command` or MCP_BACKUP_PASSWORD; for a server's, ~/.pgpass or "
            "the `password_command` of its source."
        )
    if close:
        return f"Did you mean `{close[0]}` by `{_label(location)}`?"
    names = ", ".join(siblings)
    return f"Valid in place of `{_label(location)}`: {names}." if names else ""


def _close(key: str, known: Iterable[str]) -> list[str]:
    return get_close_matches(key, list(known), n=1, cutoff=0.7)
