"""Dates and times from text, and what Python cannot hold."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest

from backend_watcher.decode import values_time as times
from backend_watcher.decode.values_own import Interval, PostgresText
from backend_watcher.errors import ProtocolError


def zone(**offset: int) -> timezone:
    return timezone(timedelta(**offset))


@pytest.mark.parametrize(
    ("load", "data", "value"),
    [
        (times.load_date, "2024-02-29", date(2024, 2, 29)),
        (times.load_date, "0001-01-01", date(1, 1, 1)),
        (times.load_date, "9999-12-31", date(9999, 12, 31)),
        (times.load_time, "12:34:56.7", time(12, 34, 56, 700_000)),
        (times.load_time, "23:59:59.999999", time(23, 59, 59, 999_999)),
        (times.load_timetz, "01:02:03+00", time(1, 2, 3, tzinfo=UTC)),
        (times.load_timetz, "01:02:03-15:59:59", time(1, 2, 3, tzinfo=zone(hours=-15, minutes=-59, seconds=-59))),
        (times.load_timetz, "01:02:03.5+05:30", time(1, 2, 3, 500_000, tzinfo=zone(hours=5, minutes=30))),
        (times.load_timestamp, "2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5)),
        (times.load_timestamp, "2024-01-02 03:04:05.00012", datetime(2024, 1, 2, 3, 4, 5, 120)),
        (times.load_timestamptz, "2024-01-02 03:04:05+00", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (times.load_timestamptz, "2024-01-02 03:04:05.5+00", datetime(2024, 1, 2, 3, 4, 5, 500_000, UTC)),
        (times.load_timestamptz, "2024-01-02 03:04:05+05:30", datetime(2024, 1, 1, 21, 34, 5, tzinfo=UTC)),
        (times.load_interval, "1 mon 2 days 00:00:03", Interval(1, 2, 3_000_000)),
    ],
)
def test_value(load: Any, data: str, value: Any) -> None:
    loaded = load(data.encode())
    assert type(loaded) is type(value)
    assert str(loaded) == str(value)


@pytest.mark.parametrize(
    ("load", "data", "type_name"),
    [
        (times.load_date, "infinity", "date"),
        (times.load_date, "-infinity", "date"),
        (times.load_date, "0044-03-15 BC", "date"),
        (times.load_date, "5874897-12-31", "date"),
        (times.load_date, "10000-01-01", "date"),
        (times.load_time, "24:00:00", "time"),
        (times.load_timetz, "24:00:00+00", "timetz"),
        (times.load_timetz, "24:00:00-15:59:59", "timetz"),
        (times.load_timestamp, "infinity", "timestamp"),
        (times.load_timestamp, "294276-12-31 23:59:59.999999", "timestamp"),
        (times.load_timestamp, "4713-01-01 00:00:00 BC", "timestamp"),
        (times.load_timestamp, "121212-12-12 12:12:12", "timestamp"),
        (times.load_timestamptz, "-infinity", "timestamptz"),
        (times.load_timestamptz, "294276-12-31 23:59:59.999999+00", "timestamptz"),
        (times.load_timestamptz, "0001-12-31 23:59:59.5+00 BC", "timestamptz"),
        (times.load_timestamptz, "9999-12-31 23:59:59-01", "timestamptz"),
        (times.load_timestamptz, "0001-01-01 00:00:00+01", "timestamptz"),
        (times.load_interval, "infinity", "interval"),
        (times.load_interval, "-infinity", "interval"),
    ],
)
def test_what_python_cannot_hold_stays_text(load: Any, data: str, type_name: str) -> None:
    value = load(data.encode())
    assert isinstance(value, PostgresText)
    assert value == data
    assert value.type_name == type_name


@pytest.mark.parametrize(
    ("load", "data"),
    [
        (times.load_date, b""),
        (times.load_date, b"Infinity"),
        (times.load_date, b"2024-13-01"),
        (times.load_date, b"15.01.2024"),
        (times.load_date, b"2024-01-01 AD"),
        (times.load_date, b"\xff"),
        (times.load_time, b"25:00:00"),
        (times.load_time, b"12:00:00+00"),
        (times.load_time, b"24:00:01"),
        (times.load_timetz, b"12:00:00"),
        (times.load_timetz, b"12:00:00+99"),
        (times.load_timestamp, b"2024-01-01 00:00:00+00"),
        (times.load_timestamp, b"Mon Jan 01 00:00:00 2024"),
        (times.load_timestamptz, b"2024-01-01 00:00:00"),
        (times.load_timestamptz, b"2024-02-30 00:00:00+00"),
        (times.load_timestamptz, b"10000-01-01 00:00:00"),
        (times.load_interval, b"soon"),
    ],
)
def test_malformed(load: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        load(data)
