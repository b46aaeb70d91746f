"""The lookup: which type becomes what, and nothing but ProtocolError for bytes that are no value."""

import pickle
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.decode.values import is_binary_equal, load_binary_of, load_text_of
from backend_watcher.decode.values_own import Interval, PostgresText
from backend_watcher.decode.values_range import EMPTY, Multirange, Range
from backend_watcher.decode.values_types import NAMES, TYPES
from backend_watcher.errors import ProtocolError

UNKNOWN = 999_999
ONE = struct.pack(">q", 1)

# Type, text, binary, value.
EVERY: list[tuple[str, bytes, bytes, Any]] = [
    ("bool", b"t", b"\x01", True),
    ("int2", b"1", ONE[-2:], 1),
    ("int4", b"1", ONE[-4:], 1),
    ("int8", b"1", ONE, 1),
    ("oid", b"4294967295", b"\xff" * 4, 4294967295),
    ("xid", b"4294967295", b"\xff" * 4, 4294967295),
    ("cid", b"4294967295", b"\xff" * 4, 4294967295),
    ("xid8", b"18446744073709551615", b"\xff" * 8, 18446744073709551615),
    ("float4", b"0.1", struct.pack(">f", 0.1), 0.1),
    ("float8", b"0.1", struct.pack(">d", 0.1), 0.1),
    ("numeric", b"1.10", struct.pack(">HhHH2H", 2, 0, 0, 2, 1, 1000), Decimal("1.10")),
    ("money", b"$0.01", ONE, "$0.01"),
    ("text", b"a", b"a", "a"),
    ("varchar", b"a", b"a", "a"),
    ("bpchar", b"a ", b"a ", "a "),
    ("name", b"a", b"a", "a"),
    ("char", b"", b"\x00", ""),
    ("xml", b"<a/>", b"<a/>", "<a/>"),
    ("refcursor", b"a", b"a", "a"),
    ("jsonpath", b"$", b"\x01$", "$"),
    ("bytea", b"\\x61", b"a", b"a"),
    ("json", b"[1]", b"[1]", [1]),
    ("jsonb", b"[1]", b"\x01[1]", [1]),
    ("date", b"2000-01-02", ONE[-4:], date(2000, 1, 2)),
    ("time", b"00:00:00.000001", ONE, time(microsecond=1)),
    ("timetz", b"00:00:00.000001+00", ONE + b"\0\0\0\0", time(microsecond=1, tzinfo=UTC)),
    ("timestamp", b"2000-01-01 00:00:00.000001", ONE, datetime(2000, 1, 1, microsecond=1)),
    ("timestamptz", b"2000-01-01 00:00:00.000001+00", ONE, datetime(2000, 1, 1, microsecond=1, tzinfo=UTC)),
    ("interval", b"00:00:00.000001", ONE + b"\0" * 8, Interval(microseconds=1)),
    ("uuid", b"00000000-0000-0000-0000-000000000001", b"\0" * 8 + ONE, UUID(int=1)),
    ("inet", b"1.2.3.4", b"\x02\x20\x00\x04\x01\x02\x03\x04", "1.2.3.4"),
    ("cidr", b"1.2.3.4/32", b"\x02\x20\x01\x04\x01\x02\x03\x04", "1.2.3.4/32"),
    ("macaddr", b"00:00:00:00:00:01", ONE[-6:], "00:00:00:00:00:01"),
    ("macaddr8", b"00:00:00:00:00:00:00:01", ONE, "00:00:00:00:00:00:00:01"),
    ("bit", b"1", b"\0\0\0\x01\x80", "1"),
    ("varbit", b"1", b"\0\0\0\x01\x80", "1"),
    ("pg_lsn", b"0/1", ONE, "0/1"),
    ("int4range", b"[0,1)", b"\x02\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\x01", Range(0, 1, True)),
    ("int8range", b"(,1)", b"\x08\0\0\0\x08" + ONE, Range(None, 1)),
    ("numrange", b"empty", b"\x01", EMPTY),
    ("tsrange", b"(,)", b"\x18", Range()),
    ("tstzrange", b"(,infinity]", b"\x0c\0\0\0\x08\x7f" + b"\xff" * 7, Range(None, "infinity", False, True)),
    ("daterange", b"[2000-01-02,)", b"\x12\0\0\0\x04" + ONE[-4:], Range(date(2000, 1, 2), None, True)),
    ("int4multirange", b"{}", b"\0\0\0\0", Multirange()),
    ("int8multirange", b"{(,1)}", b"\0\0\0\x01\0\0\0\x0d\x08\0\0\0\x08" + ONE, Multirange((Range(None, 1),))),
    *(
        (name, b"{(,)}", b"\0\0\0\x01\0\0\0\x01\x18", Multirange((Range(),)))
        for name in ("nummultirange", "tsmultirange", "tstzmultirange", "datemultirange")
    ),
]
PLAUSIBLE = st.text('0123456789-+.:eE{}[]"\\,;= NaInftyBC/xulrs', max_size=40).map(str.encode)


@pytest.mark.parametrize(("name", "text", "binary", "value"), EVERY, ids=[case[0] for case in EVERY])
def test_every_type(name: str, text: bytes, binary: bytes, value: Any) -> None:
    oid, array_oid = TYPES[name]
    assert is_binary_equal(oid)
    assert is_binary_equal(array_oid)
    for loaded in (load_text_of(oid)(text), load_binary_of(oid)(binary)):
        assert loaded == value
        assert type(loaded) is type(value)
    text_array = b'{NULL,"%s"}' % text.replace(b"\\", b"\\\\")
    binary_array = struct.pack(">iiIiiii", 1, 1, oid, 2, 1, -1, len(binary)) + binary
    assert load_text_of(array_oid)(text_array) == load_binary_of(array_oid)(binary_array) == [None, value]


def test_every_type_is_every_type() -> None:
    assert {case[0] for case in EVERY} == {name for name, (oid, _) in TYPES.items() if is_binary_equal(oid)}


def test_unknown_type_is_text_or_bytes() -> None:
    assert load_text_of(UNKNOWN)("grün".encode()) == "grün"
    assert load_text_of(UNKNOWN)(b"\xff") == "\udcff"
    assert load_binary_of(UNKNOWN)(b"\xff") == b"\xff"
    assert not is_binary_equal(UNKNOWN)


def test_built_in_type_without_a_python_value_is_text_or_bytes() -> None:
    oid, array_oid = TYPES["point"]
    assert load_text_of(oid)(b"(1,2)") == "(1,2)"
    assert load_binary_of(oid)(b"12345678") == b"12345678"
    assert load_text_of(array_oid)(b'{"(1,2)",NULL}') == ["(1,2)", None]
    assert not is_binary_equal(array_oid)


def test_box_arrays_are_parted_by_semicolons() -> None:
    assert load_text_of(TYPES["box"][1])(b"{(3,4),(1,2);(1,1),(0,0)}") == ["(3,4),(1,2)", "(1,1),(0,0)"]


@pytest.mark.parametrize("type_oid", sorted(NAMES))
def test_loaders_travel_to_another_process(type_oid: int) -> None:
    for load in (load_text_of(type_oid), load_binary_of(type_oid)):
        assert pickle.loads(pickle.dumps(load))


def attempt(load: Any, data: bytes) -> Any:
    try:
        return load(data)
    except ProtocolError:
        return None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | PLAUSIBLE)
def test_any_bytes_give_a_value_or_a_protocol_error(data: bytes) -> None:
    for type_oid in NAMES:
        attempt(load_text_of(type_oid), data)
        attempt(load_binary_of(type_oid), data)


@pytest.mark.parametrize("type_oid", sorted(NAMES))
def test_no_bytes_at_all(type_oid: int) -> None:
    attempt(load_text_of(type_oid), b"")
    attempt(load_binary_of(type_oid), b"")


def test_an_error_never_shows_the_bytes() -> None:
    for name in ("int4", "numeric", "float8", "uuid", "bytea", "date", "timestamptz", "interval", "json"):
        with pytest.raises(ProtocolError) as caught:
            load_text_of(TYPES[name][0])(b"secret")
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_own_types_name_the_type() -> None:
    value = load_text_of(TYPES["date"][0])(b"infinity")
    assert isinstance(value, PostgresText)
    assert (value.type_oid, value.type_name) == (1082, "date")
