"""The settings of drills and recovery: what is asked of a restored copy, and what comes first."""

import re
from typing import Annotated

from msgspec import Meta

from mcp_backup.settings_table import Filled, Section, shaped

_COMPARISON = re.compile(r"(=|!=|<|<=|>|>=)\s*(-?\d+(?:\.\d+)?)")
Number = int | float


Query = Annotated[str, shaped(r"(?s)\A(?=.*\S)[^\0]*\Z", "be a query", longest=10_000)]
Expected = Annotated[bool | Number | str, Meta(extra={"must": "be a number or text in quotes"})]


class CheckSettings(Section, frozen=True, kw_only=True):
    """A query on a restored database, and what its one value must be.

    `expect` is a number, a comparison such as ">= 100", or a text that the value must equal.
    """

    query: Query
    expect: Expected

    def holds(self, value: Number | str | None) -> bool:
        """Whether a value is as expected."""
        if isinstance(self.expect, str):
            found = _COMPARISON.fullmatch(self.expect.strip())
            if found is None or not isinstance(value, int | float):
                return value == self.expect
            return _compared(value, found[1], float(found[2]))
        return value == self.expect


def _compared(value: Number, operator: str, wanted: float) -> bool:
    if operator == "=":
        return value == wanted
    if operator == "!=":
        return value != wanted
    if operator in ("<", "<="):
        return value < wanted or (operator == "<=" and value == wanted)
    return value > wanted or (operator == ">=" and value == wanted)


class DrillSettings(Section, frozen=True, kw_only=True):
    """What a drill may take of a machine in use."""

    minutes: Annotated[float, Meta(gt=0, le=7 * 24 * 60)] = 60
    niceness: Annotated[int, Meta(ge=0, le=19)] = 10
    check_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30


class RecoverySettings(Section, frozen=True, kw_only=True):
    """How a recovery goes on this installation.

    `start_order` names sources; those it leaves out come last, in the order of the settings.
    `stop`, `start` and `check` are the owner's own commands for the programs that use the sources:
    the runbook prints them, and nothing runs them by itself.
    """

    start_order: tuple[Filled, ...] = ()
    stop: str = ""
    start: str = ""
    check: str = ""
