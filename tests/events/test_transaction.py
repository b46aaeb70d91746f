"""What all changes of one transaction share."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backend_watcher.events.transaction import Stream, Transaction

STREAM = Stream("7000000000000000001", "slot")


@pytest.mark.parametrize(
    ("micros", "time"),
    [
        (0, datetime(2000, 1, 1, tzinfo=UTC)),
        (-1, datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (838_771_200_123_456, datetime(2026, 7, 31, 0, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_the_commit_time_is_exact_and_in_utc(micros: int, time: datetime) -> None:
    moment = Transaction(STREAM, 1, micros, 2).commit_time
    assert moment == time
    assert moment.tzinfo is UTC


def test_what_it_holds() -> None:
    transaction = Transaction(STREAM, 2**64 - 1, -7, 2**32 - 1)
    assert (transaction.commit_lsn, transaction.commit_micros, transaction.xid) == (2**64 - 1, -7, 2**32 - 1)
    assert (transaction.stream.system_identifier, transaction.stream.slot) == ("7000000000000000001", "slot")
    assert repr(Transaction(STREAM, 0x1F, 0, 700)) == "Transaction(xid=700, commit_lsn=0x1f)"


@pytest.mark.parametrize(
    ("said", "context"), [(b'{"user":"ann"}', {"user": "ann"}), (b"", {}), (b"[1]", {}), (b"{", {}), (b"\xff", {})]
)
def test_what_was_said_of_it(said: bytes, context: dict[str, str]) -> None:
    before = Transaction(STREAM, 1, -7, 2)
    after = before.with_context(said)
    assert dict(after.context) == context
    assert dict(before.context) == {}
    assert (after.commit_lsn, after.commit_micros, after.xid) == (1, -7, 2)
    with pytest.raises(TypeError):
        after.context["user"] = "bob"  # type: ignore[index]
