"""What the tables of the settings are made of, and how values become one.

A rule that a pattern can say stands in the declaration, with its sentence; the others stand in
`__post_init__`, which also runs for tables built by hand. Types are checked only where values come
from outside: in `checked`, which accepts what text can say of numbers ("5") and of truth ("true"),
since variables of the environment are texts.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from mcp_backup.cron import Cron
from mcp_backup.errors import SettingsInvalid
from mcp_backup.secret import Secret

Table = TypeVar("Table", bound="Section")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings: frozen, and closed to keys it does not know."""


class Refused(ValueError):
    """A rule refuses the setting `at` this place in its table, or the table: the sentence says why.

    It goes on after the setting's name: "must be ...", "is missing".
    """

    def __init__(self, sentence: str, *at: str | int) -> None:
        """Say so of the setting at `at`, or of the whole table."""
        super().__init__(" ".join([*map(str, at), sentence]))
        self.sentence, self.at = sentence, at


def shaped(pattern: str, must: str, *, shortest: int = 0, longest: int | None = None) -> Meta:
    r"""Return the rule that a text matches `pattern`, worded "must ..." where it does not.

    A pattern is searched for; it ends in `\Z`, since `$` lets a line's end pass.
    """
    return Meta(pattern=pattern, min_length=shortest, max_length=longest, extra={"must": must})


_NAME = "[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
_NAME_RULE = "be 1 to 100 letters, digits, '.', '_' or '-', and not begin with '.' or '-'"

Filled = Annotated[str, Meta(min_length=1)]
UsablePath = Path  # absolute by now: `settings.py` knows what it is relative to
SourceName = Annotated[  # a directory in every snapshot, and an argument on command lines
    str, shaped(rf"\A{_NAME}\Z", _NAME_RULE)
]
NameOrNone = Annotated[str, shaped(rf"\A(?:{_NAME})?\Z", _NAME_RULE)]
Pattern = Annotated[
    str,
    shaped(
        r"(?s)\A(?![/~])(?!(?:.*/)?\.\.(?:/|\Z)).+\Z",
        "be a pattern below `root`: not absolute, without `..`",
    ),
]
Interval = Annotated[
    str, shaped(r"\A(?:[1-9]|[1-9]\d{1,3})[mhd]\Z", 'be an interval such as "15m", "6h" or "1d"')
]


class Repeated(Section, frozen=True, kw_only=True):
    """A source that may be backed up more often than the schedule says."""

    every: Interval | None = None
    cron: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rhythm.

        Raises:
            Refused: says why.
        """
        if self.cron is not None:
            try:
                Cron.parse(self.cron)
            except ValueError as error:
                raise Refused(str(error), "cron") from None
        if self.every and self.cron:
            raise Refused("must have `every` or `cron`, not both")


def checked(
    kind: type[Table],
    values: Mapping[str, Any],
    origin: tuple[Path | None, Mapping[str, Any]] | None = None,
) -> Table:
    """Return the table of this kind that holds `values`, whose types may be anybody's guess.

    `origin` is the file they come from, and those that come from the environment.

    Raises:
        SettingsInvalid: says of each mistake where it is, what is expected and what was found.
    """
    try:
        table: Table = msgspec.convert(values, kind, dec_hook=_of_ours)
    except msgspec.ValidationError:
        wording = import_module("mcp_backup.settings_wording")
        refused: SettingsInvalid | None = wording.refusal(values, kind, origin)
    else:
        return table
    if refused is not None:
        raise refused
    loosely: Table = converted(kind, values)
    return loosely


def converted(kind: Any, value: object) -> Any:
    """Return `value` as what `kind` declares, also where a text stands for a number.

    The text "null" counts as `None` here, wherever there may be none and no text.

    Raises:
        msgspec.ValidationError: it is none; its cause is the `Refused` of a rule, if one did.
    """
    return msgspec.convert(value, kind, strict=False, dec_hook=_of_ours)


def _of_ours(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        if not str(value).strip() or "\0" in str(value):
            raise Refused("must be a path")
        return Path(value)
    if kind is Secret and isinstance(value, str | Secret):
        return value if isinstance(value, Secret) else Secret(value)
    raise TypeError
