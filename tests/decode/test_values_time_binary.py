"""Dates and times from binary, and the calendar of far years."""

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest

from backend_watcher.decode import values_time_binary as times
from backend_watcher.decode.values_own import Interval, PostgresText
from backend_watcher.errors import ProtocolError

DAY = 86_400_000_000
INT_MAX = (1 << 31) - 1


def days(value: int) -> bytes:
    return struct.pack(">i", value)


def micros(value: int) -> bytes:
    return struct.pack(">q", value)


@pytest.mark.parametrize(
    ("load", "data", "value"),
    [
        (times.load_date, days(0), date(2000, 1, 1)),
        (times.load_date, days(-1), date(1999, 12, 31)),
        (times.load_date, days(-730119), date(1, 1, 1)),
        (times.load_date, days(2921939), date(9999, 12, 31)),
        (times.load_timestamp, micros(-1), datetime(1999, 12, 31, 23, 59, 59, 999_999)),
        (times.load_timestamptz, micros(1), datetime(2000, 1, 1, microsecond=1, tzinfo=UTC)),
        (times.load_time, micros(0), time(0, 0)),
        (times.load_time, micros(DAY - 1), time(23, 59, 59, 999_999)),
        (times.load_timetz, micros(0) + days(-19_800), time(tzinfo=timezone(timedelta(hours=5, minutes=30)))),
        (times.load_timetz, micros(5) + days(0), time(microsecond=5, tzinfo=UTC)),
        (times.load_interval, struct.pack(">qii", -3, 2, -1), Interval(-1, 2, -3)),
        (times.load_interval, struct.pack(">qii", 0, INT_MAX, INT_MAX), Interval(INT_MAX, INT_MAX)),
        (times.load_interval, struct.pack(">qii", 0, -INT_MAX - 1, -INT_MAX - 1), Interval(-INT_MAX - 1, -INT_MAX - 1)),
    ],
)
def test_value(load: Any, data: bytes, value: Any) -> None:
    loaded = load(data)
    assert type(loaded) is type(value)
    assert str(loaded) == str(value)


@pytest.mark.parametrize(
    ("load", "data", "text"),
    [
        (times.load_date, days((1 << 31) - 1), "infinity"),
        (times.load_date, days(-(1 << 31)), "-infinity"),
        (times.load_date, days(-730120), "0001-12-31 BC"),
        (times.load_date, days(-2451545), "4714-11-24 BC"),
        (times.load_date, days(2921940), "10000-01-01"),
        (times.load_date, days(2145031948), "5874897-12-31"),
        (times.load_timestamp, micros((1 << 63) - 1), "infinity"),
        (times.load_timestamp, micros(9223371331200000000 - 1), "294276-12-31 23:59:59.999999"),
        (times.load_timestamp, micros(-730120 * DAY + 500_000), "0001-12-31 00:00:00.5 BC"),
        (times.load_timestamptz, micros(-(1 << 63)), "-infinity"),
        (times.load_timestamptz, micros(2921940 * DAY + 36_600_000_000), "10000-01-01 10:10:00+00"),
        (times.load_timestamptz, micros(-211813488000000000), "4714-11-24 00:00:00+00 BC"),
        (times.load_time, micros(DAY), "24:00:00"),
        (times.load_timetz, micros(DAY) + days(0), "24:00:00+00"),
        (times.load_timetz, micros(DAY) + days(3600), "24:00:00-01"),
        (times.load_timetz, micros(DAY) + days(-5400), "24:00:00+01:30"),
        (times.load_timetz, micros(DAY) + days(-57599), "24:00:00+15:59:59"),
        (times.load_timetz, micros(DAY) + days(-3601), "24:00:00+01:00:01"),
        (times.load_interval, struct.pack(">qii", (1 << 63) - 1, (1 << 31) - 1, (1 << 31) - 1), "infinity"),
        (times.load_interval, struct.pack(">qii", -(1 << 63), -(1 << 31), -(1 << 31)), "-infinity"),
    ],
)
def test_what_python_cannot_hold_is_the_servers_text(load: Any, data: bytes, text: str) -> None:
    value = load(data)
    assert isinstance(value, PostgresText)
    assert value == text
    assert value.type_name == load.__name__.removeprefix("load_")


@pytest.mark.parametrize(
    ("load", "data"),
    [
        (times.load_date, b"\x00" * 3),
        (times.load_timestamp, b"\x00" * 4),
        (times.load_timestamptz, b""),
        (times.load_time, micros(DAY + 1)),
        (times.load_time, micros(-1)),
        (times.load_time, b"\x00"),
        (times.load_timetz, micros(0)),
        (times.load_timetz, micros(0) + days(86_400)),
        (times.load_timetz, micros(-1) + days(0)),
        (times.load_interval, b"\x00" * 15),
    ],
)
def test_malformed(load: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        load(data)
