"""Arrays: NULLs, quotes, dimensions, bounds, and hostile nesting."""

import struct
from typing import Any

import pytest

from backend_watcher.decode.values import load_binary_of, load_text_of
from backend_watcher.decode.values_own import PostgresText
from backend_watcher.decode.values_types import TYPES
from backend_watcher.errors import ProtocolError

INT4, INT4_ARRAY = TYPES["int4"]
TEXT, TEXT_ARRAY = TYPES["text"]


def ints(data: bytes) -> Any:
    return load_text_of(INT4_ARRAY)(data)


def texts(data: str) -> Any:
    return load_text_of(TEXT_ARRAY)(data.encode())


def binary(cells: list[int | None], *shape: tuple[int, int], oid: int = INT4) -> bytes:
    parts = [struct.pack(">iiI", len(shape), 0, oid)]
    parts += [struct.pack(">ii", size, lower) for size, lower in shape]
    parts += [struct.pack(">i", -1) if cell is None else struct.pack(">ii", 4, cell) for cell in cells]
    return b"".join(parts)


def load_binary(data: bytes) -> Any:
    return load_binary_of(INT4_ARRAY)(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", []),
        (b"{1}", [1]),
        (b"{1,NULL,-3}", [1, None, -3]),
        (b"{{1,2},{3,NULL}}", [[1, 2], [3, None]]),
        (b"{{{{{{7}}}}}}", [[[[[[7]]]]]]),
    ],
)
def test_numbers(data: bytes, value: Any) -> None:
    assert ints(data) == value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ('{"",a,"NULL",NULL}', ["", "a", "NULL", None]),
        (r'{"a\"b","c\\d","{x}","y,z"}', ['a"b', r"c\d", "{x}", "y,z"]),
        ('{{" a","\n"},{日本,"😀 "}}', [[" a", "\n"], ["日本", "😀 "]]),
        ('{"}"}', ["}"]),
        ('{"\\\n"}', ["\n"]),
        ("{a b}", ["a b"]),
    ],
)
def test_strings(data: str, value: Any) -> None:
    assert texts(data) == value


@pytest.mark.parametrize("data", [b"[0:1]={7,8}", b"[-2:-1][5:6]={{1,2},{3,4}}"])
def test_bounds_of_its_own_stay_text(data: bytes) -> None:
    value = ints(data)
    assert isinstance(value, PostgresText)
    assert value.encode() == data
    assert value.type_name == "int4[]"


@pytest.mark.parametrize("data", [b"{" * 7 + b"1" + b"}" * 7, b"{" * 100_000, b"{" * 50_000 + b"}" * 50_000])
def test_hostile_nesting_stays_text(data: bytes) -> None:
    value = ints(data)
    assert isinstance(value, PostgresText)
    assert value.encode() == data


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"1", b"[0:1]", b"{", b"{1", b"{1,", b"{1,}", b"{,1}", b"{1}x", b"{1}}", b"{{1}", b"{1,{2}", b"{x}"),
        *(b'{"1}', b'{"1"', b'{"1"2}', b"{1;2}", b"{{1}{2}}", b"{1,{{{{{{2}}}}}}}", b'{"\\', b"{{}}", b"{\\1}"),
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        ints(data)


def test_unclosed_quotes_take_linear_time() -> None:
    with pytest.raises(ProtocolError):
        texts('{"' + "a\\" * 500_000)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (binary([]), []),
        (binary([1, None, -3], (3, 1)), [1, None, -3]),
        (binary([1, 2, 3, 4, 5, 6], (2, 1), (3, 1)), [[1, 2, 3], [4, 5, 6]]),
        (binary([1, 2, 3, 4], (2, 1), (1, 1), (2, 1)), [[[1, 2]], [[3, 4]]]),
        (binary([None, None], (2, 1)), [None, None]),
        (binary([7, 8], (2, 0)), PostgresText("[0:1]={7,8}", INT4_ARRAY)),
        (binary([1, None], (1, 1), (2, -1)), PostgresText("[1:1][-1:0]={{1,NULL}}", INT4_ARRAY)),
    ],
)
def test_binary(data: bytes, value: Any) -> None:
    loaded = load_binary(data)
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        binary([1], (1, 1))[:-1],
        binary([1], (1, 1)) + b"\x00",
        binary([1, 2], (1, 1)),
        binary([1], (2, 1)),
        binary([1], (0, 1)),
        binary([1], (-1, 1)),
        binary([1], (-1, 1), (-1, 1)),
        binary([], (1 << 30, 1), (1 << 30, 1)),
        binary([1], *[(1, 1)] * 7),
        binary([1], (1, 1), oid=TEXT),
        struct.pack(">iiI", -1, 0, INT4),
        struct.pack(">iiIiii", 1, 0, INT4, 1, 1, -2),
        struct.pack(">iiIiii", 1, 0, INT4, 1, 1, 1 << 30),
        struct.pack(">iiI", 0, 0, INT4) + b"\x00",
    ],
)
def test_binary_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        load_binary(data)


@pytest.mark.parametrize(
    ("name", "cell", "text"),
    [
        ("text", b"", '[0:0]={""}'),
        ("text", b"null", '[0:0]={"null"}'),
        ("text", b'a "\\', r'[0:0]={"a \"\\"}'),
        ("json", b'{"a":  1}', r'[0:0]={"{\"a\":  1}"}'),
        ("jsonb", b"\x01[1.50]", "[0:0]={[1.50]}"),
        ("float4", struct.pack(">f", 1e6), "[0:0]={1e+06}"),
        ("float8", struct.pack(">d", 1e6), "[0:0]={1000000}"),
        ("float8", struct.pack(">d", 1e15), "[0:0]={1e+15}"),
        ("float8", struct.pack(">d", 1e14), "[0:0]={100000000000000}"),
    ],
)
def test_binary_with_bounds_of_its_own_is_printed(name: str, cell: bytes, text: str) -> None:
    oid, array_oid = TYPES[name]
    data = struct.pack(">iiIiii", 1, 0, oid, 1, 0, len(cell)) + cell
    value = load_binary_of(array_oid)(data)
    assert value == PostgresText(text, array_oid)
    assert value.type_oid == array_oid


def test_binary_with_empty_elements() -> None:
    data = struct.pack(">iiIiiii", 1, 0, TEXT, 2, 1, 0, 1) + b"a"
    assert load_binary_of(TEXT_ARRAY)(data) == ["", "a"]
