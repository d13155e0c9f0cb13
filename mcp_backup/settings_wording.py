"""What is wrong with the settings, in sentences of this product instead of pydantic's.

Each names the file or the variable, the setting, what is expected and what was found. Values are
shown only where no secret can be: never whole tables, arguments, commands or a URL's user part.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mcp_backup.errors import SettingsInvalid

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "path_type": "a path in quotes",
    "string_type": "text in quotes",
    "tuple_type": "a list in [brackets]",
    "too_short": "a list of at least one",
    "string_too_short": "text that is not empty",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}
_PATTERNS = {
    "daily": 'a time such as "02:00"',
    "weekly": 'a day and time such as "sunday 03:00"',
    "every": 'an interval such as "15m", "6h" or "1d"',
}
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


def invalid(
    errors: Sequence[ErrorDetails], model: type[BaseModel], origin: Origin
) -> SettingsInvalid:
    """Word all of pydantic's `errors` about `model` as one error of ours."""
    told = [_told(error, model, origin) for error in errors[:_MOST]]
    facts = [fact for fact, _ in told]
    if len(errors) > _MOST:
        facts.append(f"and {len(errors) - _MOST} more")
    hints = dict.fromkeys(hint for _, hint in told if hint)  # each once, in order
    return SettingsInvalid(
        "; ".join(facts),
        hint=" ".join([*hints, "Correct it and run the command again; nothing was done."]),
    )


def unknown_variable(
    name: str, prefix: str, model: type[BaseModel], apart: Iterable[str]
) -> SettingsInvalid:
    """Word that the environment has a variable of ours that means nothing."""
    known = [prefix + path.upper().replace(".", "__") for path in _paths(model)] + sorted(apart)
    close = get_close_matches(name.upper(), known, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return SettingsInvalid(
        f"the environment variable {name} is not a setting",
        hint=f"{meant}Correct or unset it; nothing was done.",
    )


def _told(error: ErrorDetails, model: type[BaseModel], origin: Origin) -> tuple[str, str]:
    location = error["loc"]
    where = f"{origin.of(location)}: "
    label = _label(location)
    if error["type"] == "extra_forbidden":
        return f"{where}{label} is not a setting", _nearest(location, model)
    if error["type"] == "missing":
        return f"{where}{label} is missing", ""
    if error["type"] == "value_error":
        fact = str(error["ctx"]["error"])
        got = "" if isinstance(error["input"], Mapping) else _got(error)
        return f"{where}{label}{' ' if label else ''}{fact}{got}", ""
    return f"{where}{label} must be {_expected(error)}{_got(error)}", ""


def _expected(error: ErrorDetails) -> str:
    leaf = error["loc"][-1] if error["loc"] else ""
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(str(leaf), "of another form")
    wording = _EXPECTED.get(error["type"])
    return wording.format(**error.get("ctx", {})) if wording else f"different ({error['msg']})"


def _got(error: ErrorDetails) -> str:
    value = error["input"]
    if isinstance(value, BaseModel) or _SECRET.intersection(map(str, error["loc"])):
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


def _nearest(location: Sequence[str | int], model: type[BaseModel]) -> str:
    *table, key = (step for step in location if isinstance(step, str))
    known = [path.split(".") for path in _paths(model)]
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


def _paths(model: type[BaseModel]) -> Iterator[str]:
    """Yield every setting's dotted path, tables included, without positions in lists."""
    for name, field in model.model_fields.items():
        yield name
        inner = _table(field)
        if inner is not None:
            yield from (f"{name}.{path}" for path in _paths(inner))


def _table(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
