"""Output compared with what a page says."""

import re
from collections.abc import Mapping, Sequence

_ANY = "…"
_HOLE = re.compile(r"(\{\{[a-z_]+\??\}\}|…| +)")


def matched(
    expected: Sequence[str], output: str, values: Mapping[str, str]
) -> Mapping[str, str] | None:
    """Return the words to remember, or None where the output is not as printed.

    Blanks count as one, and those at the ends of lines not at all. Placeholders without a value
    match any text.
    """
    lines = [line.rstrip() for line in output.rstrip().splitlines()]
    pattern = "".join(_line(line, values) for line in expected)
    found = re.fullmatch(pattern, "".join(f"{line}\n" for line in lines))
    return None if found is None else found.groupdict()


def _line(line: str, values: Mapping[str, str]) -> str:
    if line.strip() == _ANY:
        return r"(?:.*\n)*?"
    return "".join(_piece(piece, values) for piece in _HOLE.split(line.rstrip())) + r"\n"


def _piece(piece: str, values: Mapping[str, str]) -> str:
    if piece == _ANY:
        return ".*?"
    if piece.strip() == "" and piece:
        return r"\s+"
    if piece.startswith("{{"):
        name = piece.strip("{}")
        if name.endswith("?"):
            return rf"(?P<{name[:-1]}>\S+)"
        return re.escape(values[name]) if values.get(name) else ".*?"
    return re.escape(piece)
