"""json and jsonb: nothing lost, whatever the nesting, the digits or the bytes."""

import sys
from decimal import Decimal
from typing import Any

import pytest

from backend_watcher.decode import values_json as json
from backend_watcher.decode.values_own import PostgresText
from backend_watcher.errors import ProtocolError


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"null", None),
        (b"true", True),
        (b"1", 1),
        (b"1.10", Decimal("1.10")),
        (b"1e400", Decimal("1E+400")),
        (b"12345678901234567890123", 12345678901234567890123),
        (b'{"a": [1, 2.5, {"b": null}], "a": 2}', {"a": 2}),
        (b'"\\u00e9\\n"', "é\n"),
        (b'"\\ud800"', "\ud800"),
        (b'"\\u0000"', "\0"),
        (b'["\xe9", 1.0]', ["\udce9", Decimal("1.0")]),
        (b"1" * 4300, int("1" * 4300)),
        (b"1" * 4301, Decimal("1" * 4301)),
        (b'["\\ud800", ' + b"1" * 4300 + b"]", ["\ud800", int("1" * 4300)]),
        (b'[7, 1.5, "\\ud800"]', [7, Decimal("1.5"), "\ud800"]),
    ],
)
def test_value(data: bytes, value: Any) -> None:
    for loaded in (json.load_json(data), json.load_jsonb(data), json.load_jsonb_binary(b"\x01" + data)):
        assert repr(loaded) == repr(value)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("levels", [201, 5_000, 100_000])
def test_deep_nesting_stays_text(levels: int) -> None:
    value = json.load_jsonb(nested(levels))
    assert isinstance(value, PostgresText)
    assert value.type_name == "jsonb"
    assert value.encode() == nested(levels)
    assert isinstance(json.load_json(b'{"a":' * levels + b"1" + b"}" * levels), PostgresText)


def test_nesting_up_to_the_limit_is_decoded() -> None:
    value = json.load_json(nested(200))
    for _ in range(199):
        (value,) = value
    assert value == []
    assert isinstance(json.load_json(b"[[]," + nested(199) + b"]"), list)
    assert isinstance(json.load_json(b"[[]," + nested(200) + b"]"), PostgresText)


def test_many_brackets_are_not_deep() -> None:
    wide = b"[" + b",".join([b'{"a": "[[{\\"[", "b": []}'] * 300) + b"]"
    assert len(json.load_json(wide)) == 300


def test_the_limit_does_not_depend_on_the_callers_stack() -> None:
    def deeper(calls: int) -> Any:
        return deeper(calls - 1) if calls else json.load_json(nested(200))

    assert isinstance(deeper(500), list)


def test_exponent_beyond_decimal_stays_text() -> None:
    value = json.load_json(b"[1e99999999999999999999]")
    assert value == PostgresText("[1e99999999999999999999]", 114)
    assert value.type_name == "json"


def test_lowered_integer_limit_of_the_program() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert json.load_json(b"1" * 4000 + b" ") == Decimal("1" * 4000)
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "data", [b"", b"nul", b"{", b'{"a" 1}', b"NaN", b"[Infinity]", b"'a'", b'"a', b"1 2", b"\xff", b"[1,]", b'"\x01"']
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed json"):
        json.load_json(data)


def test_unknown_version_of_the_binary_form() -> None:
    for data in (b"\x021", b""):
        with pytest.raises(ProtocolError, match="malformed jsonb"):
            json.load_jsonb_binary(data)
