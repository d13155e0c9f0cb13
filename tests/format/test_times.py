from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.times import (
    format_datetime,
    format_nanoseconds,
    parse_datetime,
    parse_nanoseconds,
)

FIRST = -62_167_219_200 * 10**9  # the year 0
LAST = 253_402_300_800 * 10**9 - 1  # the end of the year 9999
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda n: timezone(timedelta(minutes=n)))


@given(st.integers(FIRST, LAST) | st.integers(-(10**12), 10**12))
def test_nanoseconds_round_trip(moment: int) -> None:
    assert parse_nanoseconds(format_nanoseconds(moment)) == moment


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones))  # noqa: DTZ001
def test_datetimes_round_trip_with_their_zone(moment: datetime) -> None:
    again = parse_datetime(format_datetime(moment))
    assert (again, again.utcoffset()) == (moment, moment.utcoffset())


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_700_000_000_500_000_000, "2023-11-14T22:13:20.5Z"),
        (1_700_000_000_000_120_000, "2023-11-14T22:13:20.00012Z"),
        (FIRST, "0000-01-01T00:00:00Z"),
        (FIRST + 366 * 86_400 * 10**9 - 1, "0000-12-31T23:59:59.999999999Z"),
        (FIRST + 366 * 86_400 * 10**9, "0001-01-01T00:00:00Z"),
        (LAST, "9999-12-31T23:59:59.999999999Z"),
    ],
)
def test_times_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    assert format_nanoseconds(nanoseconds) == text
    assert parse_nanoseconds(text) == nanoseconds


def test_times_beyond_go_are_clamped_to_its_years() -> None:
    assert format_nanoseconds(-(1 << 80)).startswith("0000-01-01T00:00:00")
    assert format_nanoseconds(1 << 80).startswith("9999-12-31T23:59:59")


def test_zones_other_than_utc_are_kept_and_counted() -> None:
    text = "2026-11-22T19:28:48.123456789+01:30"
    assert parse_nanoseconds(text) == parse_nanoseconds("2026-11-22T17:58:48.123456789Z")
    moment = parse_datetime(text)
    assert moment.microsecond == 123456
    assert format_datetime(moment) == "2026-11-22T19:28:48.123456+01:30"
    assert format_datetime(parse_datetime("2026-11-22T19:28:48-00:30")).endswith("48-00:30")


def test_a_time_without_a_zone_is_not_written() -> None:
    with pytest.raises(ValueError, match="zone"):
        format_datetime(datetime.now(UTC).replace(tzinfo=None))


@given(st.text(st.sampled_from("0123456789-:.+TZ "), max_size=36) | st.text(max_size=12))
def test_any_other_text_is_a_time_or_an_integrity_error(text: str) -> None:
    for parse in (parse_nanoseconds, parse_datetime):
        try:
            parse(text)
        except IntegrityError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T18:28:48",
        "2026-11-22 18:28:48Z",
        "2026-02-30T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T23:59:60Z",
        "2026-11-22T18:28:48+24:00",
        "2026-11-22T18:28:48+01:60",
        "9999-12-31T23:59:59-00:01",
        "\u0662026-11-22T18:28:48Z",
    ],
)
def test_what_is_not_a_time_is_an_integrity_error(text: str) -> None:
    for parse in (parse_nanoseconds, parse_datetime):
        with pytest.raises(IntegrityError, match="not a time"):
            parse(text)
