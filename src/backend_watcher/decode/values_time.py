"""
Text form becomes dates and times (DateStyle ISO, TimeZone UTC, IntervalStyle postgres).

What Python cannot hold (infinity, before 1 AD, after 9999, 24:00:00) stays the server's text, `PostgresText`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any

from backend_watcher.decode.values_own import Interval, PostgresText, malformed
from backend_watcher.decode.values_types import TYPES

_DATE = TYPES["date"][0]
_TIME = TYPES["time"][0]
_TIMESTAMP = TYPES["timestamp"][0]
_TIMESTAMPTZ = TYPES["timestamptz"][0]
_INTERVAL = TYPES["interval"][0]
_TIMETZ = TYPES["timetz"][0]

# The only shapes the server writes that Python cannot hold; anything else is malformed.
_FAR_DATE = rb"(?:\d{5,7}-\d\d-\d\d%s|\d{4,7}-\d\d-\d\d%s BC)"
_CLOCK = rb" \d\d:\d\d:\d\d(?:\.\d{1,6})?"
_ZONE = rb"[+-]\d\d(?::\d\d){0,2}"
_odd_date = re.compile(rb"-?infinity|" + _FAR_DATE % (b"", b"")).fullmatch
_odd_timestamp = re.compile(rb"-?infinity|" + _FAR_DATE % (_CLOCK, _CLOCK)).fullmatch
_odd_timestamptz = re.compile(rb"-?infinity|" + _FAR_DATE % (_CLOCK + _ZONE, _CLOCK + _ZONE)).fullmatch
_odd_time = re.compile(rb"24:00:00").fullmatch
_odd_timetz = re.compile(rb"24:00:00" + _ZONE).fullmatch
_odd_interval = re.compile(rb"-?infinity").fullmatch


def load_date(data: bytes) -> Any:
    """Load a date."""
    try:
        return date.fromisoformat(data.decode())
    except ValueError:
        return _keep_text(data, _odd_date(data), _DATE)


def load_timestamp(data: bytes) -> Any:
    """Load a timestamp without time zone, as a datetime without one."""
    try:
        value = datetime.fromisoformat(data.decode())
    except ValueError:
        return _keep_text(data, _odd_timestamp(data), _TIMESTAMP)
    if value.tzinfo is not None:
        raise malformed("timestamp", data)
    return value


def load_timestamptz(data: bytes) -> Any:
    """Load a timestamptz, as a datetime in UTC."""
    try:
        value = datetime.fromisoformat(data.decode())
    except ValueError:
        return _keep_text(data, _odd_timestamptz(data), _TIMESTAMPTZ)
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise malformed("timestamptz", data)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return PostgresText(data.decode(), _TIMESTAMPTZ)


def load_time(data: bytes) -> Any:
    """Load a time of day."""
    # First, because newer Pythons read 24:00:00 as midnight.
    if _odd_time(data):
        return PostgresText(data.decode(), _TIME)
    try:
        value = time.fromisoformat(data.decode())
    except ValueError:
        raise malformed("time", data) from None
    if value.tzinfo is not None:
        raise malformed("time", data)
    return value


def load_timetz(data: bytes) -> Any:
    """Load a time of day with its offset from UTC, to the second."""
    if _odd_timetz(data):
        return PostgresText(data.decode(), _TIMETZ)
    try:
        value = time.fromisoformat(data.decode())
    except ValueError:
        raise malformed("timetz", data) from None
    if value.tzinfo is None:
        raise malformed("timetz", data)
    return value


def load_interval(data: bytes) -> Any:
    """Load an interval; PostgreSQL 17 and later know an infinite one."""
    if _odd_interval(data):
        return PostgresText(data.decode(), _INTERVAL)
    return Interval.parse(data)


def _keep_text(data: bytes, match: Any, type_oid: int) -> PostgresText:
    if match is None:
        # Python's own complaint quotes the value.
        raise malformed("date or time", data) from None
    return PostgresText(data.decode(), type_oid)
