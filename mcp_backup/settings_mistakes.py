"""What is wrong with values that cannot be a table of the settings: all of it, each by its place.

Loaded only where something is. Goes through the values by their declared types and asks about one
at a time, so that no mistake hides another; the rules of a table are asked where each of its
settings is well by itself.
"""

from collections.abc import Mapping
from enum import Enum, EnumType
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from mcp_backup.secret import Secret
from mcp_backup.settings_shape import bare, entries, entry, item
from mcp_backup.settings_table import Refused, converted

Place = tuple[str | int, ...]
NOTHING = object()

_OTHERWISE = {
    bool: "must be true or false",
    int: "must be a whole number",
    float: "must be a number",
    Path: "must be a path in quotes",
}


class Mistake(msgspec.Struct, frozen=True):
    """A sentence that goes on after the setting's name, and the value found, if that matters."""

    place: Place
    sentence: str
    value: object = NOTHING
    unknown: bool = False  # there is no setting of that name


def mistakes(value: object, declared: Any, place: Place = ()) -> list[Mistake]:
    """Return what keeps `value` from being what is declared, in the order of the declarations."""
    kind, limits = bare(declared)
    if value is None and _refusal(value, declared) is None:
        return []
    exactly: Any = Annotated[kind, limits]  # not `None`, as which the text "null" would do
    if entries(kind):
        return _of_table(value, kind, place)
    if entry(kind) is not None:
        return _of_free_table(value, entry(kind), place)
    if item(kind) is not None:
        return _of_list(value, exactly, place)
    refusal = _refusal(value, exactly)
    if refusal is None:
        return []
    found = NOTHING if kind is Secret else value
    return [Mistake(place, _ruled(refusal) or _sentence(value, kind, limits), found)]


def _refusal(value: object, declared: Any) -> msgspec.ValidationError | None:
    try:
        converted(declared, value)
    except msgspec.ValidationError as error:
        return error
    return None


def _ruled(refusal: msgspec.ValidationError) -> str:
    return refusal.__cause__.sentence if isinstance(refusal.__cause__, Refused) else ""


def _of_table(value: object, kind: Any, place: Place) -> list[Mistake]:
    if isinstance(value, kind):  # built by hand, and checked as it was
        return []
    if not isinstance(value, Mapping):
        return [Mistake(place, "must be a table", value)]
    known = entries(kind)
    found: list[Mistake] = []
    for name, field in known.items():
        if name in value:
            found += mistakes(value[name], field.type, (*place, name))
        elif field.required:
            found.append(Mistake((*place, name), "is missing"))
    unknown = [name for name in value if name not in known]
    found += [Mistake((*place, name), "is not a setting", unknown=True) for name in unknown]
    refusal = None if found else _refusal(value, kind)
    return [_of_rule(value, known, place, refusal)] if refusal else found


def _of_rule(
    value: Mapping[str, Any],
    known: Mapping[str, FieldInfo],
    place: Place,
    refusal: msgspec.ValidationError,
) -> Mistake:
    cause = refusal.__cause__
    if not isinstance(cause, Refused):
        return Mistake(place, f"must be different ({refusal})")
    if not cause.at:
        return Mistake(place, cause.sentence)
    name = str(cause.at[0])
    secret = name in known and bare(known[name].type)[0] is Secret
    found = NOTHING if secret else value.get(name, NOTHING)
    return Mistake((*place, *cause.at), cause.sentence, found)


def _of_free_table(value: object, declared: Any, place: Place) -> list[Mistake]:
    if not isinstance(value, Mapping):
        return [Mistake(place, "must be a table", value)]
    return [
        mistake
        for name, each in value.items()
        for mistake in mistakes(each, declared, (*place, str(name)))
    ]


def _of_list(value: object, declared: Any, place: Place) -> list[Mistake]:
    if not isinstance(value, list | tuple):
        return [Mistake(place, "must be a list in [brackets]", value)]
    found = [
        mistake
        for position, each in enumerate(value)
        for mistake in mistakes(each, item(declared), (*place, position))
    ]
    if not found and _refusal(value, declared) is not None:
        return [Mistake(place, "must be a list of at least one", value)]
    return found


def _sentence(value: object, kind: Any, limits: msgspec.Meta) -> str:
    """Say what a value that is no table and no list has to be."""
    must = (limits.extra or {}).get("must")
    if get_origin(kind) is Literal:
        return f"must be {_one_of(get_args(kind))}"
    if isinstance(kind, EnumType):
        return f"must be {_one_of([str(member.value) for member in list[Enum](kind)])}"
    if kind in _OTHERWISE:
        beyond = "" if _refusal(value, kind) else _beyond(converted(kind, value), limits)
        return beyond or _OTHERWISE[kind]
    if kind is str and isinstance(value, str):
        return _too_long(value, limits) or (f"must {must}" if must else "must be of another form")
    return f"must {must}" if must and kind is not str else "must be text in quotes"


def _beyond(number: float, limits: msgspec.Meta) -> str:
    if limits.gt is not None and not number > limits.gt:
        return f"must be a number above {limits.gt:g}"
    if limits.ge is not None and not number >= limits.ge:
        return f"must be a number of at least {limits.ge:g}"
    if limits.le is not None and not number <= limits.le:
        return f"must be a number of at most {limits.le:g}"
    return ""


def _too_long(text: str, limits: msgspec.Meta) -> str:
    if limits.min_length is not None and len(text) < limits.min_length:
        return "must be text that is not empty"
    if limits.max_length is not None and len(text) > limits.max_length:
        return f"must be text of at most {limits.max_length} characters"
    return ""


def _one_of(values: Any) -> str:
    *others, last = map(repr, values)
    return f"{', '.join(others)} or {last}" if others else str(last)
