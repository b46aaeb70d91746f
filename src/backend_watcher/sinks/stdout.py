"""One line of JSON per change, for people and pipes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from backend_watcher.contracts import Receipt
from backend_watcher.errors import SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.envelope import change_to_json


class Stdout:
    """
    Writes the outside form of each change (`events/envelope.py`), a line each, and flushes after each batch.

    `stream` is binary; standard output unless another is given, and never closed by us. What was flushed is in the
    reader's hands, so the receipt is DURABLE.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to let go of: the stream is not ours."""

    async def flush(self) -> None:
        """Nothing waits: every batch is flushed when `write` returns."""

    def describe(self) -> Mapping[str, Any]:
        """Say what this is."""
        return {"kind": "stdout", "stream": str(getattr(self._stream or sys.stdout, "name", "a stream"))}

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Write a batch. Raises SinkUnavailable when nobody reads any more."""
        lines = b"".join([change_to_json(change) + b"\n" for change in batch])
        async with self._turn:
            # In a thread: a reader that is slow, or a terminal that was stopped, may make this wait.
            await asyncio.to_thread(self._put, lines)
        return Receipt.DURABLE

    def _put(self, lines: bytes) -> None:
        stream = self._stream if self._stream is not None else sys.stdout.buffer
        try:
            stream.write(lines)
            stream.flush()
        except (OSError, ValueError) as error:
            raise SinkUnavailable(
                f"stdout: {type(error).__name__}: nobody reads it any more",
                remedy="Start the reader again, and the watcher with it.",
            ) from error
