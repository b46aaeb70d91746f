"""Values nobody thought of: the server prints them both ways, and both ways must give the same value."""

import struct
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from values_forms import dump, dump_array, dump_json, same

from backend_watcher.decode.values import load_binary_of, load_text_of
from backend_watcher.decode.values_own import Interval
from backend_watcher.decode.values_types import TYPES

SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(SOME, max_examples=400)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NUMBER = st.from_regex(r"-?[0-9]{1,40}(\.[0-9]{0,40})?", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.decimals(allow_nan=False, allow_infinity=False, places=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
MICROS_MIN, MICROS_MAX = -211813488000000000, 9223371331200000000 - 1
HOURS_MAX_14 = (1 << 31) - 1
DAYS_MIN, DAYS_MAX = -2451545, 2145031948


def check_text(oracle: Any, text: str, kind: str, again: Any = dump) -> Any:
    printed, binary = oracle.print_both(text, kind)
    oid = oracle.oid_of(kind)
    value = load_text_of(oid)(printed)
    assert same(value, load_binary_of(oid)(binary))
    assert oracle.print_text(again(value), kind) == printed
    return value


def check_binary(oracle: Any, data: bytes, kind: str, read_back: bool = True) -> Any:
    oid = TYPES[kind][0]
    printed, binary = oracle.print_binary(data, oid)
    assert binary == data
    value = load_text_of(oid)(printed)
    assert same(value, load_binary_of(oid)(binary))
    if read_back:
        assert oracle.print_text(dump(value), kind) == printed
    return value


@SOME
@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_int8(oracle: Any, number: int) -> None:
    assert check_text(oracle, str(number), "int8") == number


@MANY
@given(NUMBER)
def test_numeric(oracle: Any, text: str) -> None:
    value = check_text(oracle, text, "numeric")
    assert value == Decimal(text)


@MANY
@given(st.binary(min_size=4, max_size=4))
def test_float4(oracle: Any, data: bytes) -> None:
    value = struct.unpack(">f", data)[0]
    if value == value:  # a NaN has many bit patterns, and the text names one
        check_binary(oracle, data, "float4")


@MANY
@given(st.binary(min_size=8, max_size=8))
def test_float8(oracle: Any, data: bytes) -> None:
    value = struct.unpack(">d", data)[0]
    if value == value:
        assert check_binary(oracle, data, "float8") == value


@SOME
@given(TEXT)
def test_text(oracle: Any, text: str) -> None:
    assert check_text(oracle, text, "text") == text


@SOME
@given(st.binary(max_size=100))
def test_bytea(oracle: Any, data: bytes) -> None:
    assert check_binary(oracle, data, "bytea") == data


@MANY
@given(JSON)
def test_jsonb(oracle: Any, value: Any) -> None:
    loaded = check_text(oracle, dump_json(value), "jsonb", dump_json)
    assert loaded == value


@SOME
@given(st.binary(min_size=16, max_size=16))
def test_uuid(oracle: Any, data: bytes) -> None:
    assert check_binary(oracle, data, "uuid").bytes == data


@MANY
@given(st.integers(DAYS_MIN, DAYS_MAX) | st.integers(-800_000, 3_000_000))
def test_date(oracle: Any, days: int) -> None:
    check_binary(oracle, struct.pack(">i", days), "date")


@MANY
@given(st.integers(MICROS_MIN, MICROS_MAX) | st.integers(-63_200_000_000_000_000, 252_500_000_000_000_000))
def test_timestamps(oracle: Any, micros: int) -> None:
    check_binary(oracle, struct.pack(">q", micros), "timestamp")
    check_binary(oracle, struct.pack(">q", micros), "timestamptz")


@SOME
@given(st.integers(0, 86_400_000_000), st.integers(-57_599, 57_599))
def test_times(oracle: Any, micros: int, west: int) -> None:
    check_binary(oracle, struct.pack(">q", micros), "time")
    check_binary(oracle, struct.pack(">qi", micros, west), "timetz")


INT4 = st.integers(-(1 << 31), (1 << 31) - 1)


@MANY
@given(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-(10**12), 10**12), INT4, INT4 | st.integers(-30, 30))
def test_interval(oracle: Any, micros: int, days: int, months: int) -> None:
    # PostgreSQL 14 counts hours in 32 bits, and cannot print more.
    assume(oracle.version >= 150000 or abs(micros) < HOURS_MAX_14 * 3_600_000_000)
    # The server cannot read everything it writes (-2562047788:00:54.775808); its text is ours all the same.
    value = check_binary(oracle, struct.pack(">qii", micros, days, months), "interval", read_back=False)
    printed, _ = oracle.print_binary(struct.pack(">qii", micros, days, months), TYPES["interval"][0])
    assert str(value).encode() == printed
    assert value == Interval(months, days, micros) or printed in (b"infinity", b"-infinity")


@SOME
@given(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16), st.integers(0, 32), st.integers(0, 128))
def test_inet(oracle: Any, ip4: bytes, ip6: bytes, bits4: int, bits6: int) -> None:
    check_binary(oracle, bytes([2, bits4, 0, 4]) + ip4, "inet")
    # Groups of zeros are the hard part of printing an address.
    sparse = bytes(byte if ip4[index // 4] & 1 << index % 4 else 0 for index, byte in enumerate(ip6))
    check_binary(oracle, bytes([3, bits6, 0, 16]) + ip6, "inet")
    check_binary(oracle, bytes([3, bits6, 0, 16]) + sparse, "inet")


@SOME
@given(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.binary(min_size=8, max_size=8),
    st.from_regex("[01]{0,40}", fullmatch=True),
)
def test_printed_types(oracle: Any, cents: int, data: bytes, bits: str) -> None:
    check_binary(oracle, struct.pack(">q", cents), "money")
    check_binary(oracle, data, "pg_lsn")
    check_binary(oracle, data, "macaddr8")
    check_binary(oracle, data[:6], "macaddr")
    assert check_text(oracle, bits, "varbit") == bits


@MANY
@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(st.none() | TEXT, min_size=width, max_size=width), min_size=1, max_size=3)
    ),
    st.booleans(),
    st.integers(-3, 3),
)
def test_text_array(oracle: Any, rows: list[list[str | None]], flat: bool, lower: int) -> None:
    items: list[Any] = rows[0] if flat else rows
    literal = dump_array(items, str)
    printed, binary = oracle.print_both(literal, "text[]")
    array_oid = TYPES["text"][1]
    assert load_text_of(array_oid)(printed) == load_binary_of(array_oid)(binary) == items
    bounds = f"[{lower}:{lower + len(items) - 1}]" + ("" if flat else f"[1:{len(rows[0])}]")
    printed, binary = oracle.print_both(f"{bounds}={literal}", "text[]")
    assert same(load_text_of(array_oid)(printed), load_binary_of(array_oid)(binary))


BOUNDS = st.sampled_from(["[", "("]), st.sampled_from(["]", ")"])


@SOME
@given(st.none() | INT4, st.none() | INT4, *BOUNDS, st.lists(st.integers(-50, 50), max_size=8))
def test_ranges(oracle: Any, lower: int | None, upper: int | None, opening: str, closing: str, cuts: list[int]) -> None:
    assume(lower is None or upper is None or lower <= upper)
    # The end of the type itself cannot be included: what comes after it is no number of it.
    assume(upper != (1 << 31) - 1 and lower != (1 << 31) - 1)
    text = f"{opening}{'' if lower is None else lower},{'' if upper is None else upper}{closing}"
    check_text(oracle, text, "int4range")
    check_text(oracle, text, "numrange")
    points = sorted(set(cuts))
    pairs = ",".join(f"{opening}{a},{b}{closing}" for a, b in zip(points[::2], points[1::2], strict=False))
    for kind in ("int8multirange", "nummultirange"):
        value = check_text(oracle, "{" + pairs + "}", kind)
        for number in range(-50, 51):
            there = any(
                (a < number or (a == number and opening == "[")) and (number < b or (number == b and closing == "]"))
                for a, b in zip(points[::2], points[1::2], strict=False)
            )
            assert (number in value) == there


@SOME
@given(st.integers(MICROS_MIN, MICROS_MAX), st.integers(MICROS_MIN, MICROS_MAX), st.integers(0, 30))
def test_ranges_of_moments(oracle: Any, one: int, other: int, flags: int) -> None:
    # Both ends there, and no index flags; a range that is empty is normalized by the server.
    flags &= 0x06
    lower, upper = sorted((one, other))
    assume(lower < upper)
    data = struct.pack(">BIqIq", flags, 8, lower, 8, upper)
    for kind in ("tsrange", "tstzrange"):
        check_binary(oracle, data, kind)
