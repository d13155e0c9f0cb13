"""What the facts of a capture look like, to be told before anything relies on them.

They come from a manifest, and a stranger who has the repository's key may have written that. A
kind says of each fact that it relies on which shape it has; anything else is no evidence.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mcp_backup.errors import IntegrityError

Shape = Callable[[object], bool]


def trusted(facts: Mapping[str, Any], needed: Mapping[str, Shape], **others: Shape) -> None:
    """See that facts are what a capture writes: all that are `needed`, and `others` if there.

    Raises:
        IntegrityError: names the one that is not.
    """
    for name, shape in {**needed, **others}.items():
        if name not in facts and name in needed:
            raise _none(f"there are no {name!r}")
        if name in facts and not shape(facts[name]):
            raise _none(f"{name!r} are {facts[name]!r:.80}")


def text(value: object) -> bool:
    """Tell whether it is text that any program takes."""
    return is_name(value) and not any("\ud800" <= letter <= "\udfff" for letter in str(value))


def is_name(value: object) -> bool:
    """Tell whether it is text, or the name of a file, which need not be UTF-8."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def number(value: object) -> bool:
    """Tell whether it is an integer."""
    return type(value) is int


def truth(value: object) -> bool:
    """Tell whether it is true or false."""
    return isinstance(value, bool)


def either(*shapes: Shape) -> Shape:
    """Return the shape of what has one of these."""
    return lambda value: any(shape(value) for shape in shapes)


def nothing(value: object) -> bool:
    """Tell whether it is null."""
    return value is None


def rows_of(*shapes: Shape) -> Shape:
    """Return the shape of a list of lists, with these in each."""
    return listed(row(*shapes))


def row(*shapes: Shape) -> Shape:
    """Return the shape of a list of so many, of these shapes."""

    def is_row(value: object) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(shapes)
            and all(shape(item) for shape, item in zip(shapes, value, strict=True))
        )

    return is_row


def listed(shape: Shape) -> Shape:
    """Return the shape of a list of any length."""
    return lambda value: isinstance(value, list | tuple) and all(map(shape, value))


def mapped(shape: Shape, key: Shape = is_name) -> Shape:
    """Return the shape of what has any names, each with one of these."""
    return lambda value: (
        isinstance(value, Mapping)
        and all(key(name) and shape(inner) for name, inner in value.items())
    )


def record(needed: Mapping[str, Shape], **others: Shape) -> Shape:
    """Return the shape of what has these members, and `others` if there; more do not matter."""

    def is_record(value: object) -> bool:
        return (
            isinstance(value, Mapping)
            and needed.keys() <= value.keys()
            and all(
                shape(value[name]) for name, shape in {**needed, **others}.items() if name in value
            )
        )

    return is_record


def _none(why: str) -> IntegrityError:
    return IntegrityError(
        f"the evidence is none: {why}",
        hint="The repository holds something mcp-backup did not write; use another backup.",
    )
