"""
Parts of transactions in progress: taken out of the stream, and made what they would be after their commit.

Between Stream Start and Stream Stop each message carries the id of the transaction or subtransaction it belongs to
(manual, chapter "Logical Replication Message Formats", protocol version 2). Here that id is taken out, so that what
is left reads as in a transaction that came whole, and messages of one id that follow each other become a run.

Compiled where a C compiler is at hand (`streams.pxd` beside this file).
"""

from __future__ import annotations

from typing import NamedTuple

from backend_watcher.decode.reader import too_short, uint32_at
from backend_watcher.errors import ProtocolError

XLOG_HEADER = 25
"""Bytes before the message in a CopyData."""


class Run(NamedTuple):
    """Messages of one transaction or subtransaction: XLogData that lie end to end in `data`, with their sizes."""

    xid: int
    sizes: list[int]
    data: bytes


class BlockTaker:
    """Takes one stream block, from after its Stream Start to its Stream Stop, in as many pieces as it comes in."""

    def __init__(self, xid: int) -> None:
        self.xid = xid
        self.ended = False
        self.runs: list[Run] = []
        self.described: list[int] = []
        self._run_xid = 0
        self._sizes: list[int] = []
        self._parts: list[bytes] = []

    def take(self, data: bytes, sizes: list[int], start: int) -> int:
        """
        Take XLogData messages from number `start` on; return the number of the first that is not in the block.

        `runs` has what was taken since it was last emptied, `described` the tables whose Relation was among it, and
        `ended` is set where the Stream Stop came. Raises ProtocolError, with the offset in the message.
        """
        at = 0
        number = 0
        count = len(sizes)
        while number < start and number < count:
            at += sizes[number]
            number += 1
        # What is taken and not copied yet begins here: from behind one transaction id to the next, in one piece.
        begin = at
        while number < count and not self.ended:
            size = sizes[number]
            if size <= XLOG_HEADER or size > len(data) - at:
                raise ProtocolError(f"a CopyData of {size} bytes", message_type="w")
            kind = data[at + XLOG_HEADER]
            if (
                kind == 73 or kind == 85 or kind == 68 or kind == 82 or kind == 89 or kind == 84 or kind == 77
            ):  # IUDRYTM
                if size < XLOG_HEADER + 5:
                    raise ProtocolError(too_short(0).what, offset=size - XLOG_HEADER, message_type=chr(kind))
                xid = uint32_at(data, at + XLOG_HEADER + 1)
                if kind == 82 and size >= XLOG_HEADER + 9:
                    self.described.append(uint32_at(data, at + XLOG_HEADER + 5))
                if xid != self._run_xid:
                    self._close(data[begin:at])
                    self._run_xid = xid
                    begin = at
                self._parts.append(data[begin : at + XLOG_HEADER + 1])
                begin = at + XLOG_HEADER + 5
                self._sizes.append(size - 4)
            else:
                self._close(data[begin:at])
                self._end(kind, size)
                begin = at + size
            at += size
            number += 1
        self._close(data[begin:at])
        return number

    def _end(self, kind: int, size: int) -> None:
        """Take a message that has no transaction id."""
        if kind == 69:  # E
            if size != XLOG_HEADER + 1:
                raise ProtocolError("a Stream Stop of wrong size", message_type="E")
            self.ended = True
        elif kind != 79:  # O says where the transaction came from, which nobody asks for
            raise ProtocolError("a message that cannot be part of a transaction in progress", message_type=chr(kind))

    def _close(self, rest: bytes) -> None:
        """End the run with the rest of its last message."""
        if self._parts:
            self._parts.append(rest)
            self.runs.append(Run(self._run_xid, self._sizes, b"".join(self._parts)))
            self._sizes = []
            self._parts = []
        self._run_xid = 0
