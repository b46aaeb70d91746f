"""
What column values need besides Python's own types: `PostgresText`, `Interval`, and the error for bad bytes.

PostgreSQL knows dates Python does not: infinity, 44 BC, the year 294276, the hour 24:00:00. Such a value is
never clamped and never a crash: it stays the text the server wrote, in a type that says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from backend_watcher.decode.values_types import NAMES
from backend_watcher.errors import ProtocolError

_MICROS_PER_SECOND = 1_000_000
_INTERVAL = re.compile(
    rb"(?:([+-]?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?"
    rb"(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?"
)


def malformed(what: str, data: bytes) -> ProtocolError:
    """Make the error for bytes that are no `what`. It never shows the bytes: errors end up in logs."""
    return ProtocolError(f"malformed {what} of {len(data)} bytes")


class PostgresText(str):
    """A value Python has no type for, as the exact text the server writes; PostgreSQL reads it back."""

    __slots__ = ("type_oid",)

    type_oid: int

    def __new__(cls, text: str, type_oid: int) -> Self:
        """Keep `text`, and the OID of the type it is a value of."""
        self = super().__new__(cls, text)
        self.type_oid = type_oid
        return self

    @property
    def type_name(self) -> str:
        """The type's name, such as `timestamptz` or `date[]`."""
        return NAMES.get(self.type_oid, str(self.type_oid))

    def __getnewargs__(self) -> tuple[str, int]:  # type: ignore[override]
        # Pickling: a handler may run in another process.
        return str(self), self.type_oid

    def __repr__(self) -> str:
        return f"PostgresText({str(self)!r}, {self.type_name})"


@dataclass(frozen=True, slots=True)
class Interval:
    """
    An interval as PostgreSQL keeps it: months, days and microseconds, which are not interchangeable.

    One month is no number of days, and one day is not always 24 hours; a `timedelta` would forget which it was.
    `str(interval)` is the text the server writes; PostgreSQL reads it back.
    """

    months: int = 0
    days: int = 0
    microseconds: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Interval:
        """Read the server's text (IntervalStyle postgres). Raises ProtocolError."""
        match = _INTERVAL.fullmatch(data)
        if match is None or not data:
            raise malformed("interval", data)
        years, months, days, sign, hours, minutes, seconds, fraction = match.groups(b"")
        try:
            micros = ((int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)) * _MICROS_PER_SECOND
            micros += int(fraction.ljust(6, b"0"))
            return cls(int(years or 0) * 12 + int(months or 0), int(days or 0), -micros if sign == b"-" else micros)
        except ValueError:
            raise malformed("interval", data) from None

    def to_timedelta(self) -> timedelta:
        """Return the same length with days of 24 hours. Raises ValueError if there are months."""
        if self.months:
            raise ValueError("an interval with months or years has no fixed length")
        return timedelta(days=self.days, microseconds=self.microseconds)

    def __str__(self) -> str:
        years, months = divmod(abs(self.months), 12)
        parts: list[str] = []
        negative = False
        for value, unit in (
            (-years if self.months < 0 else years, "year"),
            (-months if self.months < 0 else months, "mon"),
            (self.days, "day"),
        ):
            if value:
                plus = "+" if negative and value > 0 else ""
                parts.append(f"{plus}{value} {unit}{'' if value == 1 else 's'}")
                negative = value < 0
        if self.microseconds or not parts:
            sign = "-" if self.microseconds < 0 else "+" if negative else ""
            parts.append(sign + _clock(abs(self.microseconds)))
        return " ".join(parts)


def _clock(micros: int) -> str:
    seconds, fraction = divmod(micros, _MICROS_PER_SECOND)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:06d}".rstrip("0") if fraction else text
