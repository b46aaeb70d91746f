"""
Binary form becomes dates and times: days, microseconds, months counted from 2000-01-01.

What Python cannot hold becomes the same `PostgresText` the text form gives, so the calendar of far years and
the server's way to print it are here too.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any

from backend_watcher.decode.values_own import Interval, PostgresText, malformed
from backend_watcher.decode.values_types import TYPES

_DATE = TYPES["date"][0]
_TIME = TYPES["time"][0]
_TIMESTAMP = TYPES["timestamp"][0]
_TIMESTAMPTZ = TYPES["timestamptz"][0]
_INTERVAL = TYPES["interval"][0]
_TIMETZ = TYPES["timetz"][0]

_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001
_EPOCH_UTC = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_DAYS_PER_400_YEARS = 146_097
_MICROS_PER_DAY = 86_400_000_000
_MICROS_MIN, _MICROS_MAX = -(1 << 63), (1 << 63) - 1
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1

_unpack_days = Struct(">i").unpack
_unpack_micros = Struct(">q").unpack
_unpack_micros_zone = Struct(">qi").unpack
_unpack_interval = Struct(">qii").unpack


def load_date(data: bytes) -> Any:
    """Load days since 2000-01-01."""
    try:
        (days,) = _unpack_days(data)
    except StructError:
        raise malformed("date", data) from None
    try:
        return date.fromordinal(_EPOCH_ORDINAL + days)
    except (ValueError, OverflowError):
        return PostgresText(_print_infinity(days, _INT_MIN, _INT_MAX) or _print_far(days, ""), _DATE)


def load_timestamp(data: bytes) -> Any:
    """Load microseconds since 2000-01-01."""
    try:
        (micros,) = _unpack_micros(data)
    except StructError:
        raise malformed("timestamp", data) from None
    try:
        return _EPOCH + timedelta(0, 0, micros)
    except OverflowError:
        return PostgresText(_print_far_moment(micros, ""), _TIMESTAMP)


def load_timestamptz(data: bytes) -> Any:
    """Load microseconds since 2000-01-01 UTC."""
    try:
        (micros,) = _unpack_micros(data)
    except StructError:
        raise malformed("timestamptz", data) from None
    try:
        return _EPOCH_UTC + timedelta(0, 0, micros)
    except OverflowError:
        return PostgresText(_print_far_moment(micros, "+00"), _TIMESTAMPTZ)


def load_time(data: bytes) -> Any:
    """Load microseconds since midnight."""
    try:
        (micros,) = _unpack_micros(data)
    except StructError:
        raise malformed("time", data) from None
    if micros == _MICROS_PER_DAY:
        return PostgresText("24:00:00", _TIME)
    if not 0 <= micros < _MICROS_PER_DAY:
        raise malformed("time", data)
    return (_EPOCH + timedelta(0, 0, micros)).time()


def load_timetz(data: bytes) -> Any:
    """Load microseconds since midnight, and the zone in seconds *west* of UTC."""
    try:
        micros, west = _unpack_micros_zone(data)
        zone = timezone(timedelta(0, -west))
    except (StructError, ValueError, OverflowError):
        raise malformed("timetz", data) from None
    if micros == _MICROS_PER_DAY:
        return PostgresText(f"24:00:00{_print_zone(-west)}", _TIMETZ)
    if not 0 <= micros < _MICROS_PER_DAY:
        raise malformed("timetz", data)
    return (_EPOCH + timedelta(0, 0, micros)).time().replace(tzinfo=zone)


def load_interval(data: bytes) -> Any:
    """Load microseconds, days, months; all at their ends mean infinity."""
    try:
        micros, days, months = _unpack_interval(data)
    except StructError:
        raise malformed("interval", data) from None
    if months == days == _INT_MAX and micros == _MICROS_MAX:
        return PostgresText("infinity", _INTERVAL)
    if months == days == _INT_MIN and micros == _MICROS_MIN:
        return PostgresText("-infinity", _INTERVAL)
    return Interval(months, days, micros)


def _print_infinity(value: int, low: int, high: int) -> str:
    return "infinity" if value == high else "-infinity" if value == low else ""


def _print_far_moment(micros: int, zone: str) -> str:
    infinity = _print_infinity(micros, _MICROS_MIN, _MICROS_MAX)
    if infinity:
        return infinity
    days, rest = divmod(micros, _MICROS_PER_DAY)
    clock = (_EPOCH + timedelta(0, 0, rest)).strftime("%H:%M:%S.%f").rstrip("0").rstrip(".")
    return _print_far(days, f" {clock}{zone}")


def _print_far(days: int, clock: str) -> str:
    # The calendar repeats every 400 years, so a day of any year is looked up in the years 1 to 400.
    cycles, day = divmod(_EPOCH_ORDINAL - 1 + days, _DAYS_PER_400_YEARS)
    near = date.fromordinal(day + 1)
    year = near.year + 400 * cycles
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04d}-{near.month:02d}-{near.day:02d}{clock}{era}"


def _print_zone(seconds_east: int) -> str:
    sign = "-" if seconds_east < 0 else "+"
    hours, rest = divmod(abs(seconds_east), 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{sign}{hours:02d}"
    if rest:
        text += f":{minutes:02d}"
    if seconds:
        text += f":{seconds:02d}"
    return text
