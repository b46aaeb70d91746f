"""Frames, whole or in pieces, and errors as data."""

from __future__ import annotations

import pytest

from backend_watcher.errors import ConfigError, HandlerError, Retry, RetryKind, Skip
from backend_watcher.sinks.process_wire import (
    MESSAGE_CHARACTERS_MAX,
    TRACE_CHARACTERS_MAX,
    Batch,
    Done,
    Frames,
    Kind,
    Packed,
    error_of,
    failure_of,
    frame,
    read,
)

BATCH = Batch("work", False, [("7", "slot")], [Packed(0, 1 << 62, b"\0\xff" * 500), Packed(0, 2, b"")])


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_frames_come_whole_however_they_are_cut(size: int) -> None:
    sent = frame(Kind.BATCH, BATCH) + frame(Kind.STOP) + frame(Kind.DONE, Done(3))
    frames, got = Frames(), []
    for at in range(0, len(sent), size):
        got += frames.feed(sent[at : at + size])
    assert [kind for kind, _ in got] == [Kind.BATCH, Kind.STOP, Kind.DONE]
    assert read(got[0][1], Batch) == BATCH
    assert read(got[2][1], Done) == Done(3)


def test_an_error_keeps_its_words_its_kind_and_where_it_was_raised() -> None:
    def told(error: BaseException) -> HandlerError:
        try:
            raise error
        except BaseException as raised:
            failure = failure_of(raised)
            assert "test_process_wire.py" in failure.trace
            assert "secret" not in failure.trace
            return error_of(read(frame(Kind.DONE, Done(1, failure))[5:], Done).failure)

    plain = told(ValueError("secret"))
    assert (type(plain), plain.message, plain.retry) == (HandlerError, "ValueError: secret", RetryKind.LATER)
    again, skip = told(Retry(1.5, "secret")), told(Skip("secret"))
    assert (type(again), again.after_seconds, str(again)) == (Retry, 1.5, "secret")
    assert (type(skip), skip.retry, str(skip)) == (Skip, RetryKind.SKIP, "secret")
    # Nothing but a HandlerError stops a subscription from out there.
    assert told(ConfigError(["secret"])).retry is RetryKind.LATER


def test_what_a_function_says_at_length_is_cut() -> None:
    code = compile("raise ValueError('x' * 1_000_000)", "a_long_way/" * 1000, "exec")
    with pytest.raises(ValueError, match="x") as caught:
        exec(code)
    failure = failure_of(caught.value)
    assert len(failure.message) == MESSAGE_CHARACTERS_MAX
    assert len(failure.trace) == TRACE_CHARACTERS_MAX
