"""
What a process that runs a user's functions and its parent say to each other, and how it is framed. Pure.

    length of the body (32 bits), kind (8 bits), body

Integers are big-endian, bodies MessagePack. The parent says SETUP, TABLE, BATCH and STOP, the child READY, REFUSED and
DONE; nothing is unpickled on either side. A table is told once to each child; a change travels as `events/packed.py`
writes it.
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Iterator
from enum import IntEnum
from typing import TypeVar

import msgspec

from backend_watcher.errors import HandlerError, Retry, RetryKind, Skip

MESSAGE_CHARACTERS_MAX = 2000
TRACE_CHARACTERS_MAX = 4000
TRACE_FRAMES_MAX = 20

_HEAD = struct.Struct(">IB")

T = TypeVar("T")


class Kind(IntEnum):
    """What a frame is."""

    SETUP = 1
    READY = 2
    REFUSED = 3
    TABLE = 4
    BATCH = 5
    DONE = 6
    STOP = 7


class Setup(msgspec.Struct, frozen=True, array_like=True):
    """The program to load, where its modules are looked for, and how much memory it may have. The first frame."""

    target: str
    path: list[str]
    parent: int
    memory_bytes: int | None = None


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """A table, as `Table.dump` wrote it."""

    version: int
    dump: bytes


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A change: which of its batch's streams it is of, its table's version, and its bytes."""

    stream: int
    table: int
    data: bytes


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Changes for the function of a subscription. A stream is its system identifier and its slot."""

    subscription: str
    coalesce: bool
    streams: list[tuple[str, str]]
    changes: list[Packed]


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error of a user's function. `trace` names lines of code, and holds no values."""

    kind: str
    message: str
    remedy: str
    retry: str
    after_seconds: float | None
    blames_sink: bool
    trace: str


class Done(msgspec.Struct, frozen=True, array_like=True):
    """How a batch ended. With a failure the first `settled` changes are done; None: it failed as a whole."""

    settled: int | None = None
    failure: Failure | None = None


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """Why a child cannot work, for a person."""

    faults: list[str]


def frame(kind: Kind, body: object = None) -> bytes:
    """Write one frame."""
    data = msgspec.msgpack.encode(body)
    return _HEAD.pack(len(data), kind) + data


def read(data: bytes, kind: type[T]) -> T:
    """Read the body of a frame."""
    return msgspec.msgpack.decode(data, type=kind)


class Frames:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Take what was received, and give what is complete by now."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._data)
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            body = bytes(memoryview(self._data)[_HEAD.size : end])
            del self._data[:end]
            yield Kind(kind), body


def failure_of(error: BaseException) -> Failure:
    """Write down an error, and where in the code it was raised."""
    if not isinstance(error, HandlerError):
        told = HandlerError(f"{type(error).__name__}: {error}")
        told.__cause__ = error
        error = told
    raised = error.__cause__ or error
    lines = traceback.format_tb(raised.__traceback__, limit=-TRACE_FRAMES_MAX)
    return Failure(
        type(error).__name__,
        error.message[:MESSAGE_CHARACTERS_MAX],
        error.remedy,
        error.retry,
        error.after_seconds,
        error.blames_sink,
        "".join(lines)[-TRACE_CHARACTERS_MAX:],
    )


def error_of(failure: Failure) -> HandlerError:
    """Make the error again: with its words and its retry kind, without the class that a program gave it."""
    if failure.kind == Skip.__name__:
        return Skip(failure.message)
    if failure.kind == Retry.__name__:
        return Retry(failure.after_seconds, failure.message)
    error = HandlerError(failure.message, remedy=failure.remedy)
    error.retry = RetryKind(failure.retry)
    error.after_seconds = failure.after_seconds
    error.blames_sink = failure.blames_sink
    return error
