"""PostgresText and Interval."""

import copy
import pickle
from datetime import timedelta

import pytest

from backend_watcher.decode.values_own import Interval, PostgresText, malformed
from backend_watcher.errors import ProtocolError


def test_postgres_text_is_its_text() -> None:
    value = PostgresText("infinity", 1184)
    assert value == "infinity"
    assert type(str(value)) is str
    assert repr(value) == "PostgresText('infinity', timestamptz)"
    assert PostgresText("x", 77_777).type_name == "77777"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_postgres_text_keeps_its_type(again) -> None:
    value = again(PostgresText("24:00:00", 1083))
    assert value == "24:00:00"
    assert type(value) is PostgresText
    assert value.type_oid == 1083


INTERVALS = [
    ("00:00:00", Interval()),
    ("1 day", Interval(days=1)),
    ("24:00:00", Interval(microseconds=86_400_000_000)),
    ("1 year 2 mons 3 days 04:05:06.789", Interval(14, 3, 14_706_789_000)),
    ("-1 years -2 mons +3 days -04:05:06", Interval(-14, 3, -14_706_000_000)),
    ("-1 days +00:00:00.000001", Interval(0, -1, 1)),
    ("1 mon -1 days", Interval(1, -1)),
    ("-1 mons +1 day -00:00:01", Interval(-1, 1, -1_000_000)),
    ("11 mons", Interval(11)),
    ("-00:00:00.5", Interval(microseconds=-500_000)),
    ("2562047788:00:54.775807", Interval(microseconds=(1 << 63) - 1)),
]


@pytest.mark.parametrize(("text", "value"), INTERVALS)
def test_interval_reads_and_writes_the_servers_text(text: str, value: Interval) -> None:
    assert Interval.parse(text.encode()) == value
    assert str(value) == text


def test_interval_keeps_days_apart_from_hours() -> None:
    assert Interval(days=1) != Interval(microseconds=86_400_000_000)
    assert len({Interval(days=1), Interval(days=1), Interval(months=1)}) == 2


def test_interval_becomes_a_timedelta_if_it_has_a_length() -> None:
    assert Interval(0, 1, 5).to_timedelta() == timedelta(days=1, microseconds=5)
    with pytest.raises(ValueError, match="no fixed length"):
        Interval(1, 0, 0).to_timedelta()


@pytest.mark.parametrize("data", [b"", b" ", b"1", b"1 day 1 year", b"1:2:3", b"PT1S", b"1 fortnight", b"\xff"])
def test_interval_refuses_other_text(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed interval"):
        Interval.parse(data)


def test_malformed_tells_the_size_only() -> None:
    assert "malformed int4 of 3 bytes" in str(malformed("int4", b"abc"))
