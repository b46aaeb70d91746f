"""
A cursor over the bytes of one message; short input raises ProtocolError and nothing else.

Integers are big-endian (manual, chapter "Message Data Types"). Compiled where a C compiler is at hand.
"""

from __future__ import annotations

from backend_watcher.errors import ProtocolError

TUPLE_NULL = 110  # n
TUPLE_UNCHANGED = 117  # u
TUPLE_TEXT = 116  # t
TUPLE_BINARY = 98  # b


def uint32_at(data: bytes, at: int) -> int:
    """Read 32 bits at an offset that was checked before."""
    return (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]


def uint64_at(data: bytes, at: int) -> int:
    """Read 64 bits at an offset that was checked before."""
    high = uint32_at(data, at)
    return (high << 32) | uint32_at(data, at + 4)


def tuple_end(data: bytes, at: int, end: int, columns: int) -> int:
    """
    Check the TupleData that begins at `at`, and return where it ends.

    `columns` is how many the Relation has, or -1 to believe the tuple. Raises ProtocolError where it does not
    fit in the message, names an unknown kind, or has another number of columns.
    """
    if at + 2 > end:
        raise too_short(at)
    count = (data[at] << 8) | data[at + 1]
    if columns >= 0 and count != columns:
        raise ProtocolError(f"a row of {count} columns where its table has {columns}", offset=at)
    at += 2
    for _ in range(count):
        if at >= end:
            raise too_short(at)
        kind = data[at]
        at += 1
        if kind == TUPLE_TEXT or kind == TUPLE_BINARY:  # noqa: SIM109 one comparison each once compiled
            if at + 4 > end:
                raise too_short(at)
            size = uint32_at(data, at)
            at += 4
            if size > end - at:
                raise too_short(at)
            at += size
        elif kind != TUPLE_NULL and kind != TUPLE_UNCHANGED:
            raise ProtocolError(f"a column of unknown kind {kind:#04x}", offset=at - 1)
    return at


def too_short(at: int) -> ProtocolError:
    """Make the error for a message that ends too early."""
    return ProtocolError("the message ends in the middle of a field", offset=at)


class Reader:
    """Reads one message from front to back."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int = -1) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end < 0 else end

    def need(self, size: int) -> None:
        """Raise ProtocolError unless `size` bytes are left."""
        if size < 0 or size > self.end - self.at:
            raise too_short(self.at)

    def uint8(self) -> int:
        """Read one byte."""
        self.need(1)
        self.at += 1
        return self.data[self.at - 1]

    def uint16(self) -> int:
        """Read 16 bits."""
        self.need(2)
        self.at += 2
        return (self.data[self.at - 2] << 8) | self.data[self.at - 1]

    def uint32(self) -> int:
        """Read 32 bits."""
        self.need(4)
        self.at += 4
        return uint32_at(self.data, self.at - 4)

    def int32(self) -> int:
        """Read 32 bits with a sign."""
        value = self.uint32()
        return value - 0x100000000 if value > 0x7FFFFFFF else value

    def uint64(self) -> int:
        """Read 64 bits."""
        self.need(8)
        self.at += 8
        return uint64_at(self.data, self.at - 8)

    def int64(self) -> int:
        """Read 64 bits with a sign."""
        value = self.uint64()
        return value - 0x10000000000000000 if value > 0x7FFFFFFFFFFFFFFF else value

    def string(self) -> str:
        """Read text up to a zero byte; bytes that are not UTF-8 are kept as surrogates."""
        stop = self.data.find(b"\0", self.at, self.end)
        if stop < 0:
            raise too_short(self.at)
        text = self.data[self.at : stop].decode("utf-8", "surrogateescape")
        self.at = stop + 1
        return text

    def take(self, size: int) -> bytes:
        """Read `size` bytes."""
        self.need(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def row(self) -> int:
        """Check the TupleData here, step over it, and return where it began."""
        start = self.at
        self.at = tuple_end(self.data, start, self.end, -1)
        return start

    def finish(self) -> None:
        """Raise ProtocolError unless the message ends here."""
        if self.at != self.end:
            raise ProtocolError(f"{self.end - self.at} bytes too many", offset=self.at)
