"""The lookup: which type becomes what, and nothing but ProtocolError for bytes that are no value."""

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.decode.values import is_binary_equal, load_binary_of, load_text_of
from backend_watcher.decode.values_own import PostgresText
from backend_watcher.decode.values_types import NAMES, TYPES
from backend_watcher.errors import ProtocolError

UNKNOWN = 999_999
PLAUSIBLE = st.text('0123456789-+.:eE{}[]"\\,;= NaInftyBC/xulrs', max_size=40).map(str.encode)


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
