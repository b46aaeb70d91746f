"""The cursor: integers with and without sign, and one error for everything that does not fit."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import cells

from backend_watcher.decode.reader import Reader, tuple_end, uint32_at, uint64_at
from backend_watcher.errors import ProtocolError


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_integers_anywhere_in_the_bytes(small: int, large: int, before: int) -> None:
    data = b"\xff" * before + struct.pack(">IQ", small, large) + b"\xff"
    assert uint32_at(data, before) == small
    assert uint64_at(data, before + 4) == large
    reader = Reader(data, before)
    assert (reader.uint32(), reader.uint64()) == (small, large)
    assert reader.at == before + 12


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**16 - 1))
def test_integers_with_a_sign(small: int, large: int, short: int) -> None:
    reader = Reader(struct.pack(">iqHB", small, large, short, 255))
    assert (reader.int32(), reader.int64(), reader.uint16(), reader.uint8()) == (small, large, short, 255)
    reader.finish()


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_the_edges_of_integers(value: int) -> None:
    # Zero too: compiled, it is also what an error returns.
    assert Reader(struct.pack(">Q", value)).uint64() == value
    assert Reader(struct.pack(">I", value & 0xFFFFFFFF)).uint32() == value & 0xFFFFFFFF


@pytest.mark.parametrize("method", ["uint8", "uint16", "uint32", "int32", "uint64", "int64", "string", "row"])
def test_short_input(method: str) -> None:
    for size in range({"uint8": 1, "uint16": 2, "uint32": 4, "int32": 4, "string": 9, "row": 2}.get(method, 8)):
        with pytest.raises(ProtocolError, match="in the middle of a field") as caught:
            getattr(Reader(b"\x01" * 3 + b"\x7f" * size, 3), method)()
        assert caught.value.offset == 3


def test_the_end_may_lie_before_the_end_of_the_bytes() -> None:
    reader = Reader(b"\0\0\0\1\0\0\0\2", 0, 6)
    assert reader.uint32() == 1
    with pytest.raises(ProtocolError):
        reader.uint32()
    assert reader.at == 4
    assert reader.uint16() == 0
    reader.finish()


def test_text() -> None:
    reader = Reader(b"public\0gr\xc3\xbcn\0\xff\xfe\0\0rest")
    assert [reader.string() for _ in range(4)] == ["public", "grün", "\udcff\udcfe", ""]
    with pytest.raises(ProtocolError):
        reader.string()


def test_the_zero_byte_must_lie_before_the_end() -> None:
    with pytest.raises(ProtocolError):
        Reader(b"name\0", 0, 4).string()


def test_take() -> None:
    reader = Reader(b"abcdef")
    assert (reader.take(0), reader.take(4)) == (b"", b"abcd")
    for size in (3, 0x7FFFFFFF, 0xFFFFFFFF, -1):
        with pytest.raises(ProtocolError):
            reader.take(size)
    assert reader.take(2) == b"ef"
    reader.finish()


def test_finish_says_how_much_is_left() -> None:
    with pytest.raises(ProtocolError, match="3 bytes too many") as caught:
        Reader(b"abcdef", 3).finish()
    assert caught.value.offset == 3


def test_a_row_is_stepped_over() -> None:
    data = b"##" + cells(["1", None, ..., b"\0" * 300, ""]) + b"rest"
    reader = Reader(data, 2)
    assert reader.row() == 2
    assert data[reader.at :] == b"rest"
    assert tuple_end(data, 2, len(data), 5) == tuple_end(data, 2, len(data), -1) == reader.at


def test_a_row_of_no_columns() -> None:
    assert tuple_end(b"\0\0", 0, 2, 0) == 2


def test_a_row_of_another_number_of_columns() -> None:
    data = cells(["1", "2"])
    for columns in (0, 1, 3, 65536 + 2):
        with pytest.raises(ProtocolError, match=f"2 columns where its table has {columns}") as caught:
            tuple_end(data, 0, len(data), columns)
        assert caught.value.offset == 0


@pytest.mark.parametrize("kind", [0, ord("T"), ord("o"), 0x80, 0xFF])
def test_a_column_of_unknown_kind(kind: int) -> None:
    data = b"\0\2n" + bytes([kind]) + b"\0\0\0\1x"
    with pytest.raises(ProtocolError, match=f"unknown kind {kind:#04x}") as caught:
        tuple_end(data, 0, len(data), -1)
    assert caught.value.offset == 3


@pytest.mark.parametrize("size", [5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_beyond_the_message(size: int) -> None:
    # What lies behind the message is readable, and must not be read.
    data = b"\0\1t" + struct.pack(">I", size) + b"abcd" + b"behind"
    with pytest.raises(ProtocolError, match="in the middle"):
        tuple_end(data, 0, 11, 1)


def test_every_cut_of_a_row_is_too_short() -> None:
    data = cells(["12", None, ..., b"xyz"], b"b")
    for end in range(len(data)):
        with pytest.raises(ProtocolError, match="in the middle") as caught:
            tuple_end(data, 0, end, 4)
        assert 0 <= caught.value.offset <= end
