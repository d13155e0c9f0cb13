"""The shape of the settings, read from their declarations: for variables, and for what is wrong."""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from mcp_backup.settings_table import Section


def bare(declared: Any) -> tuple[Any, msgspec.Meta]:
    """Return what a value has to be where there is one, and within which limits."""
    limits = msgspec.Meta()
    while True:
        origin, arguments = get_origin(declared), get_args(declared)
        if origin is Annotated:
            declared, limits = arguments[0], arguments[1]
        elif origin in (Union, UnionType):
            others = [each for each in arguments if each is not NoneType]
            if len(others) > 1:
                return declared, limits
            declared = others[0]
        else:
            return declared, limits


def entries(declared: Any) -> dict[str, FieldInfo]:
    """Return the settings of a table by their names; none where a table is not what it is."""
    kind, _ = bare(declared)
    if isinstance(kind, type) and issubclass(kind, Section):
        return {field.name: field for field in fields(kind)}
    return {}


def item(declared: Any) -> Any:
    """Return what each item of a list has to be; `None` where a list is not what it is."""
    kind, _ = bare(declared)
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def entry(declared: Any) -> Any:
    """Return what each value of a table of free keys has to be; `None` where it is none."""
    kind, _ = bare(declared)
    return get_args(kind)[1] if get_origin(kind) in (dict, Mapping) else None


def paths(declared: Any) -> Iterator[str]:
    """Yield every setting's dotted path, tables included, without positions in lists."""
    for name, field in entries(declared).items():
        yield name
        yield from (f"{name}.{path}" for path in paths(item(field.type) or field.type))
