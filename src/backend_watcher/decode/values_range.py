"""
Ranges and multiranges of the built-in types: `Range` and `Multirange`, from text and from binary.

A bound is a Python value of the subtype, or None where the range has no end there. `infinity` is a value and no
missing end: PostgreSQL tells `[2026-01-01,infinity)` from `[2026-01-01,)`, and so does a `Range`. Manual, chapter
"Range Types"; the binary form is that of the server's `range_send` and `multirange_send`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import error as StructError  # noqa: N812
from struct import unpack_from
from typing import Any

from backend_watcher.decode.values_own import malformed
from backend_watcher.decode.values_print import print_value
from backend_watcher.events.table import Load

_BOUND = rb'(?:"([^"\\]*(?:(?:""|\\.)[^"\\]*)*)"|([^"\\()\[\],\s]*))'
_match_range = re.compile(rb"(?:empty|([\[(])%b,%b([\])]))" % (_BOUND, _BOUND), re.DOTALL).match
_ESCAPE = re.compile(rb'\\(.)|"(")', re.DOTALL)
_NEEDS_QUOTES = re.compile(r'[\s"\\()\[\],]|\A\Z')

# Flags of the binary form. CONTAINS_EMPTY is of the server's indexes, and never sent.
_EMPTY, _LOWER_IN, _UPPER_IN, _LOWER_NONE, _UPPER_NONE = 0x01, 0x02, 0x04, 0x08, 0x10
_KNOWN = _EMPTY | _LOWER_IN | _UPPER_IN | _LOWER_NONE | _UPPER_NONE
_RANGE_BYTES_MIN = 5
_FLOAT_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Range:
    """
    A range of values; `lower` or `upper` is None where it has no end.

    `lower_included` and `upper_included` say whether a bound belongs to it, and are False where there is none. Ranges
    of whole numbers and of days always include the lower bound and exclude the upper, as PostgreSQL keeps them. The
    empty range has `is_empty` and nothing else. `str(range)` is the text the server writes; PostgreSQL reads it back.
    """

    lower: Any = None
    upper: Any = None
    lower_included: bool = False
    upper_included: bool = False
    is_empty: bool = False

    def __contains__(self, value: Any) -> bool:
        """Say whether a value lies in it. Raises TypeError where a bound cannot be compared, such as infinity."""
        if self.is_empty:
            return False
        if self.lower is not None and (value < self.lower or (value == self.lower and not self.lower_included)):
            return False
        return self.upper is None or value < self.upper or (self.upper_included and bool(value == self.upper))

    def __str__(self) -> str:
        if self.is_empty:
            return "empty"
        opening, closing = "[" if self.lower_included else "(", "]" if self.upper_included else ")"
        return f"{opening}{_print_bound(self.lower)},{_print_bound(self.upper)}{closing}"


@dataclass(frozen=True, slots=True)
class Multirange:
    """Ranges that do not touch, in order. `str(multirange)` is the text the server writes."""

    ranges: tuple[Range, ...] = ()

    def __iter__(self) -> Iterator[Range]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def __contains__(self, value: Any) -> bool:
        """Say whether a value lies in any of them."""
        return any(value in one for one in self.ranges)

    def __str__(self) -> str:
        return "{" + ",".join(map(str, self.ranges)) + "}"


EMPTY = Range(is_empty=True)


def load_range(load: Load, data: bytes) -> Range:
    """Load the text form; `load` reads a bound."""
    match = _match_range(data)
    if match is None or match.end() != len(data):
        raise malformed("range", data)
    return _from_match(load, match, data)


def load_multirange(load: Load, data: bytes) -> Multirange:
    """Load the text form of ranges in braces."""
    if data == b"{}":
        return Multirange()
    ranges = []
    at, end = 0, len(data) - 1
    if data[:1] != b"{" or data[end:] != b"}":
        raise malformed("multirange", data)
    while at < end:
        match = _match_range(data, at + 1)
        if match is None or data[match.end() : match.end() + 1] not in (b",", b"}"):
            raise malformed("multirange", data)
        ranges.append(_from_match(load, match, data))
        at = match.end()
    if at != end:
        raise malformed("multirange", data)
    return Multirange(tuple(ranges))


def _from_match(load: Load, match: re.Match[bytes], data: bytes) -> Range:
    opening, quoted_lower, lower, quoted_upper, upper, closing = match.groups()
    if opening is None:
        return EMPTY
    begin, end = _load_bound(load, quoted_lower, lower), _load_bound(load, quoted_upper, upper)
    included = opening == b"[", closing == b"]"
    if (begin is None and included[0]) or (end is None and included[1]):
        raise malformed("range", data)
    return Range(begin, end, *included)


def _load_bound(load: Load, quoted: bytes | None, bare: bytes) -> Any:
    if quoted is not None:
        return load(_ESCAPE.sub(rb"\1\2", quoted))
    return load(bare) if bare else None


def load_range_binary(load: Load, data: bytes) -> Range:
    """Load the binary form: flags, then each bound there is behind its length."""
    try:
        bound, at = _read_range(load, data)
    except StructError:
        raise malformed("range", data) from None
    if at != len(data):
        raise malformed("range", data)
    return bound


def load_multirange_binary(load: Load, data: bytes) -> Multirange:
    """Load the binary form: how many, then each range behind its length."""
    ranges = []
    try:
        (count,) = unpack_from(">I", data)
        at = 4
        # Checked before anything is made of it: each takes its length and its flags at least.
        if count > (len(data) - at) // _RANGE_BYTES_MIN:
            raise malformed("multirange", data)
        for _ in range(count):
            (size,) = unpack_from(">I", data, at)
            at += 4
            if size > len(data) - at:
                raise malformed("multirange", data)
            ranges.append(load_range_binary(load, data[at : at + size]))
            at += size
    except StructError:
        raise malformed("multirange", data) from None
    if at != len(data):
        raise malformed("multirange", data)
    return Multirange(tuple(ranges))


def _read_range(load: Load, data: bytes) -> tuple[Range, int]:
    (flags,) = unpack_from(">B", data)
    if flags & ~_KNOWN:
        raise malformed("range", data)
    if flags & _EMPTY:
        return EMPTY, 1
    bounds: list[Any] = []
    at = 1
    for none in (_LOWER_NONE, _UPPER_NONE):
        if flags & none:
            bounds.append(None)
            continue
        (size,) = unpack_from(">I", data, at)
        at += 4
        if size > len(data) - at:
            raise malformed("range", data)
        bounds.append(load(data[at : at + size]))
        at += size
    included = bool(flags & _LOWER_IN), bool(flags & _UPPER_IN)
    if (bounds[0] is None and included[0]) or (bounds[1] is None and included[1]):
        raise malformed("range", data)
    return Range(bounds[0], bounds[1], *included), at


def _print_bound(value: Any) -> str:
    if value is None:
        return ""
    text = print_value(value, _FLOAT_DIGITS)
    if _NEEDS_QUOTES.search(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'
    return text
