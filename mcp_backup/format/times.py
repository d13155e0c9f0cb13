"""Times as Go writes them: RFC 3339, up to nine decimals without trailing zeros.

    2026-11-22T18:28:48.5Z    2026-11-22T19:28:48+01:00

Source: Go's time.RFC3339Nano.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

from mcp_backup.errors import IntegrityError

_SECOND = 1_000_000_000  # nanoseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CYCLE = 400  # years after which the calendar repeats: lends us the year 0, which datetime lacks
_CYCLE_SECONDS = 146_097 * 86_400
_FIRST = -62_167_219_200  # 0000-01-01T00:00:00Z in seconds; restic clamps to it
_LAST = 253_402_300_799  # 9999-12-31T23:59:59Z
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]+))?"
    r"(?:Z|([+-])([0-9]{2}):([0-5][0-9]))"
)


def format_nanoseconds(nanoseconds: int) -> str:
    """Return a time since the epoch as RFC 3339 in UTC, clamped to the years 0 to 9999."""
    seconds, fraction = divmod(nanoseconds, _SECOND)
    seconds = min(max(seconds, _FIRST), _LAST)
    cycles = 1 if seconds < _FIRST + 366 * 86_400 else 0  # within the year 0
    moment = _EPOCH + timedelta(seconds=seconds + cycles * _CYCLE_SECONDS)
    year = moment.year - cycles * _CYCLE
    return f"{year:04}-{moment:%m-%dT%H:%M:%S}{_decimals(fraction)}Z"


def parse_nanoseconds(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time.

    Raises:
        IntegrityError: not one.
    """
    moment, cycles, fraction = _parse(text)
    seconds = (moment - _EPOCH) // timedelta(seconds=1) - cycles * _CYCLE_SECONDS
    return seconds * _SECOND + fraction


def format_datetime(moment: datetime) -> str:
    """Return an aware time as RFC 3339, in its own zone."""
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("a time without a zone")
    text = moment.replace(tzinfo=None, microsecond=0).isoformat()
    text += _decimals(moment.microsecond * 1000)
    minutes = round(offset / timedelta(minutes=1))
    if not minutes:
        return text + "Z"
    hours, minutes = divmod(abs(minutes), 60)
    return f"{text}{'-' if offset < timedelta(0) else '+'}{hours:02}:{minutes:02}"


def parse_datetime(text: str) -> datetime:
    """Return an RFC 3339 time as an aware datetime in its own zone, whole microseconds.

    Raises:
        IntegrityError: not one, or in the year 0.
    """
    moment, cycles, fraction = _parse(text)
    if cycles:
        raise IntegrityError(f"{text!r:.60} is not a time we can hold")
    return moment.replace(microsecond=fraction // 1000)


def _parse(text: str) -> tuple[datetime, int, int]:
    match = _TIME.fullmatch(text)
    if match is None:
        raise IntegrityError(f"{text!r:.60} is not a time")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    cycles = 0 if year else 1
    try:
        zone = _zone(match)
        moment = datetime(year + cycles * _CYCLE, month, day, hour, minute, second, tzinfo=zone)
        moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise IntegrityError(f"{text!r:.60} is not a time: {error}") from error
    return moment, cycles, int((match[7] or "0")[:9].ljust(9, "0"))


def _zone(match: re.Match[str]) -> timezone:
    if not match[8]:
        return UTC
    offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
    return timezone(-offset if match[8] == "-" else offset)


def _decimals(nanoseconds: int) -> str:
    return f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
