"""Flags of a tool, typed by the tool's own input schema.

`--backup_type full`, `--backup-type=full`, `--verify`, `--no-verify`, `--verify false`,
`--components databases,config`: what a shell can say, turned into the JSON the tool takes.
Nothing is known of any particular tool.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mcp_backup.errors import UsageError

_TRUTHS = {"true": True, "yes": True, "on": True, "1": True}
_TRUTHS |= {"false": False, "no": False, "off": False, "0": False}
_SHOWN = {"boolean": "true|false", "array": "a,b", "object": "JSON"}


def tool_arguments(tool: str, schema: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Read the words after the tool's name as its arguments.

    Raises:
        UsageError: a flag the tool does not take, a value it cannot be, or one missing.
    """
    properties: Mapping[str, Any] = schema.get("properties", {})
    arguments: dict[str, Any] = {}
    rest = list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        name, negated = _named(tool, flag, properties)
        kind = _kind(properties[name], schema)
        if kind == "boolean" and not equals:
            value = rest.pop(0) if rest and rest[0].lower() in _TRUTHS else "true"
        elif not equals:
            value = _following(tool, flag, rest)
        converted = _converted(flag, value, kind)
        if isinstance(converted, list):
            converted = arguments.get(name, []) + converted
        arguments[name] = not converted if negated else converted
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    if missing:
        raise UsageError(
            f"{tool} needs {', '.join('--' + name for name in missing)}",
            hint="Add it. Nothing was called.",
        )
    return arguments


def described(tool: str, schema: Mapping[str, Any]) -> list[str]:
    """Word the flags of a tool, one a line."""
    lines = []
    for name, each in schema.get("properties", {}).items():
        choices = [str(choice) for choice in _of(each, schema).get("enum", ()) if choice]
        kind = _kind(each, schema)
        value = "|".join(choices) or _SHOWN.get(kind, kind)
        needed = "" if name not in schema.get("required", ()) else " (needed)"
        lines.append(f"  --{name} {value}{needed}  {each.get('description', '')}".rstrip())
    return lines or [f"  {tool} takes nothing"]


def _named(tool: str, flag: str, properties: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the argument a flag names, and whether it stands for its opposite."""
    name = flag.removeprefix("--").replace("-", "_")
    if flag.startswith("--"):
        if name in properties:
            return name, False
        positive = name.removeprefix("no_")
        if positive != name and positive in properties:
            return positive, True
    near = get_close_matches(name, properties, n=1)
    meant = f"; did you mean --{near[0]}?" if near else ""
    raise UsageError(
        f"{tool} does not take {flag!r}{meant}",
        hint=f"It takes {', '.join('--' + each for each in properties) or 'nothing'}. "
        "Nothing was called.",
    )


def _following(tool: str, flag: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise UsageError(f"{tool}: {flag} has no value", hint="Add it. Nothing was called.")
    return rest.pop(0)


def _of(property_: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and alternatives to what says the type."""
    if "$ref" in property_:
        name = property_["$ref"].removeprefix("#/$defs/")
        return _of(schema.get("$defs", {}).get(name, {}), schema)
    for alternative in property_.get("anyOf", ()):
        if alternative.get("type") != "null":
            return _of(alternative, schema)
    return property_


def _kind(property_: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind = _of(property_, schema).get("type", "string")
    return kind if isinstance(kind, str) else "string"


def _converted(flag: str, value: str, kind: str) -> Any:
    try:
        return _CONVERSIONS.get(kind, str)(value)
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"{flag} {value!r} is not of type {kind}", hint="Correct it. Nothing was called."
        ) from error


def _separated(value: str) -> Any:
    if value.startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "boolean": lambda value: _TRUTHS[value.lower()],
    "integer": int,
    "number": float,
    "object": json.loads,
    "array": _separated,
}
