"""Cron expressions: minute, hour, day of month, month, day of week.

As cron reads them: `*`, `5`, `1-5`, `*/15`, `10-50/20` and lists of these; months and days of the
week also by name; 0 and 7 are Sunday; when both days are restricted, either one is enough.
"""

import calendar
from collections.abc import Iterator
from datetime import date, datetime, time

from msgspec import Struct

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = dict(zip(("sun", "mon", "tue", "wed", "thu", "fri", "sat"), range(7), strict=True))
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # of each month, in any year


class Cron(Struct, frozen=True):
    """When the clock on the wall has to show what. `days_of_week` counts from Sunday, 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] = frozenset(range(1, 32))
    months: frozenset[int] = frozenset(range(1, 13))
    days_of_week: frozenset[int] = frozenset(range(7))
    either_day: bool = False  # both kinds of days are restricted, so one of them is enough
    every_hour: bool = False  # the hours follow the clock around, also when it is set

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Read an expression.

        Raises:
            ValueError: it is none, or no day ever fits it.
        """
        fields = text.lower().split()
        if len(fields) != 5:
            raise ValueError('must be five fields, such as "*/30 * * * *"')
        minute, hour, day, month, weekday = fields
        cron = cls(
            minutes=tuple(sorted(_numbers(minute, 0, 59, {}))),
            hours=tuple(sorted(_numbers(hour, 0, 23, {}))),
            days=frozenset(_numbers(day, 1, 31, {})),
            months=frozenset(_numbers(month, 1, 12, _MONTHS)),
            days_of_week=frozenset(number % 7 for number in _numbers(weekday, 0, 7, _DAYS)),
            either_day=not (day.startswith("*") or weekday.startswith("*")),
            every_hour=hour.startswith("*"),
        )
        possible = any(min(cron.days) <= _LONGEST[month - 1] for month in cron.months)
        if not possible and not cron.either_day:
            raise ValueError("must be a day that exists")
        return cron

    def times(self, day: date) -> Iterator[datetime]:
        """Yield the wall clock times of one day, ascending, without a zone."""
        if not self._fits(day):
            return
        for hour in self.hours:
            for minute in self.minutes:
                yield datetime.combine(day, time(hour, minute))

    def _fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_name = day.day in self.days, day.isoweekday() % 7 in self.days_of_week
        return by_date or by_name if self.either_day else by_date and by_name


def _numbers(field: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = _number(first, names)
            end = _number(last, names) if dash else high if slash else start
        stride = _number(step, {}) if slash else 1
        if not (low <= start <= end <= high) or stride < 1:
            raise ValueError(f"must have numbers from {low} to {high} where it has {part!r:.20}")
        found.update(range(start, end + 1, stride))
    return found


def _number(text: str, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise ValueError(f"must have a number where it has {text!r:.20}")
    return int(text)
