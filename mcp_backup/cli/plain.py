"""Words of a command line as values, without the library that typer checks all types with.

Loading it takes as long as a backup of what did not change. What is plainly right is taken here:
texts, paths, whole numbers, choices, and lists of them. The rest goes typer's way, and so does
whatever is wrong: the refusals are its own.
"""

import os
from collections.abc import Callable
from enum import EnumType
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

_NOT_PLAIN = object()
_OF_PATHS = ("exists", "writable", "resolve_path")  # which typer looks into


class PlainCommand(TyperCommand):
    """A verb whose plain values are taken as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, which look at their values first."""
        return [_looking_first(each) for each in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    """The program, whose own options are taken likewise."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, which look at their values first."""
        return [_looking_first(each) for each in super().get_params(ctx)]


def _looking_first(parameter: Any) -> Any:
    if "process_value" not in vars(parameter):
        vars(parameter)["process_value"] = partial(_processed, parameter, parameter.process_value)
    return parameter


def _processed(parameter: Any, usual: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    declared = getattr(parameter, "type_descriptor", None)  # of typer, and not promised
    if declared is None or (parameter.required and value is None):
        return usual(context, value)
    if value is None:
        plain: Any = () if parameter.multiple else None
    else:
        plain = _plain(value, declared.annotation, declared.parameter_info)
    if plain is _NOT_PLAIN:
        return usual(context, value)
    callback = parameter.callback
    return callback(context, parameter, plain) if callback is not None else plain


def _plain(value: Any, kind: Any, limits: Any) -> Any:
    """Return `value` as what it has to be; `_NOT_PLAIN` where typer should have a look."""
    if get_origin(kind) is list and isinstance(value, list | tuple):
        items = [_plain(each, get_args(kind)[0], limits) for each in value]
        return _NOT_PLAIN if _NOT_PLAIN in items else items
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else _NOT_PLAIN
    if isinstance(kind, EnumType):
        members: list[Any] = list(kind)
        return next((each for each in members if value in (each, each.value)), _NOT_PLAIN)
    if kind is Path and isinstance(value, str | Path):
        checked = any(getattr(limits, each) for each in _OF_PATHS)
        readable = os.access(value, os.R_OK) or not os.path.lexists(value)
        return Path(value) if readable and not checked else _NOT_PLAIN
    if kind in (int, float):
        return _number(value, kind, limits)
    return value if kind in (str, bool) and isinstance(value, kind) else _NOT_PLAIN


def _number(value: Any, kind: Any, limits: Any) -> Any:
    try:
        number = kind(value)
    except ValueError:
        return _NOT_PLAIN
    above = limits.min is None or number >= limits.min
    below = limits.max is None or number <= limits.max
    return number if above and below else _NOT_PLAIN
