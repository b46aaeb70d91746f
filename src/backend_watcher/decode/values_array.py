"""
Arrays become lists, nested for more than one dimension, with None for NULL.

An array whose lower bound is not 1 (`[0:1]={7,8}`) would lose its bounds in a list, so it stays the server's
text, `PostgresText`. So does text nested deeper than PostgreSQL's own limit.
"""

from __future__ import annotations

import re
from math import prod
from struct import error as StructError  # noqa: N812
from struct import unpack_from
from typing import Any, NoReturn

from backend_watcher.decode.values_own import PostgresText, malformed
from backend_watcher.decode.values_print import print_value
from backend_watcher.decode.values_text import load_text
from backend_watcher.decode.values_types import TYPES
from backend_watcher.events.table import Load

DIMENSIONS_MAX = 6
"""PostgreSQL's MAXDIM."""

_FLOAT4 = TYPES["float4"][0]
_JSONB = TYPES["jsonb"][0]
_JSON = TYPES["json"][0]

_BOUNDS = re.compile(rb"(?:\[-?\d+:-?\d+\])+=\{")
# One element and the delimiter or brace behind it.
_ELEMENT = {
    delimiter: re.compile(
        rb'(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^"\\{}%b]+))([}%b])' % (delimiter, delimiter), re.DOTALL
    ).match
    for delimiter in (b",", b";")
}
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_NEEDS_QUOTES = re.compile(r'[\s"\\{},]|\A\Z|\Anull\Z', re.IGNORECASE | re.ASCII)


def load_array(load: Load, type_oid: int, delimiter: bytes, data: bytes) -> Any:
    """Load the text form; `load` reads one element."""
    if not data.startswith(b"{"):
        if _BOUNDS.match(data):
            return PostgresText(load_text(data), type_oid)
        raise malformed("array", data)
    if data.rfind(b"{") == 0 and data.find(b"}") == len(data) - 1 and b'"' not in data:
        inner = data[1:-1]
        if not inner:
            return []
        return [None if element == b"NULL" else load(element) for element in inner.split(delimiter)]
    # In an array of any depth the first element stands that deep.
    if len(data) - len(data.lstrip(b"{")) > DIMENSIONS_MAX:
        return PostgresText(load_text(data), type_oid)
    items, end = _read_list(load, delimiter, data, 1, 1)
    if end != len(data):
        raise malformed("array", data)
    return items


def _read_list(load: Load, delimiter: bytes, data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    """Read from behind a `{` to behind its `}`; return the items and where they end."""
    match_element = _ELEMENT[delimiter]
    items: list[Any] = []
    while True:
        match = match_element(data, at)
        if match is not None:
            quoted, bare, mark = match.groups()
            if quoted is not None:
                items.append(load(_ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
            else:
                items.append(None if bare == b"NULL" else load(bare))
            at = match.end()
        elif data.startswith(b"{", at) and depth < DIMENSIONS_MAX:
            item, at = _read_list(load, delimiter, data, at + 1, depth + 1)
            items.append(item)
            mark = data[at : at + 1]
            at += 1
        else:
            raise malformed("array", data)
        if mark == b"}":
            return items, at
        if mark != delimiter:
            raise malformed("array", data)


def load_array_binary(load: Load, element_oid: int, type_oid: int, data: bytes) -> Any:
    """Load the binary form: dimensions, bounds, then each element behind its length (-1 is NULL)."""
    try:
        dimensions, _, oid = unpack_from(">iiI", data)
        if dimensions == 0 and oid == element_oid and len(data) == 12:
            return []
        if not 1 <= dimensions <= DIMENSIONS_MAX or oid != element_oid:
            _refuse(data)
        shape = unpack_from(f">{2 * dimensions}i", data, 12)
        cells = _read_cells(data, 12 + 8 * dimensions, shape[::2])
    except StructError:
        raise malformed("array", data) from None
    if any(lower != 1 for lower in shape[1::2]):
        return _print_array(load, element_oid, type_oid, cells, shape)
    return _nest([None if cell is None else load(cell) for cell in cells], shape[::2])


def _read_cells(data: bytes, at: int, sizes: tuple[int, ...]) -> list[bytes | None]:
    count = prod(sizes)
    # Checked before anything is allocated: each element takes four bytes at least.
    if min(sizes) <= 0 or count > (len(data) - at) // 4:
        _refuse(data)
    cells: list[bytes | None] = []
    for _ in range(count):
        (size,) = unpack_from(">i", data, at)
        at += 4
        if size == -1:
            cells.append(None)
            continue
        if size < 0 or at + size > len(data):
            _refuse(data)
        cells.append(data[at : at + size])
        at += size
    if at != len(data):
        _refuse(data)
    return cells


def _refuse(data: bytes) -> NoReturn:
    raise malformed("array", data)


def _nest(items: list[Any], sizes: tuple[int, ...]) -> list[Any]:
    for size in reversed(sizes[1:]):
        items = [items[at : at + size] for at in range(0, len(items), size)]
    return items


def _print_array(
    load: Load, element_oid: int, type_oid: int, cells: list[bytes | None], shape: tuple[int, ...]
) -> PostgresText:
    """Write the text the server writes for an array with bounds of its own."""
    bounds = "".join(f"[{lower}:{lower + size - 1}]" for size, lower in zip(shape[::2], shape[1::2], strict=True))
    elements = _nest([_print_element(load, element_oid, cell) for cell in cells], shape[::2])
    return PostgresText(f"{bounds}={_print_list(elements)}", type_oid)


def _print_element(load: Load, element_oid: int, cell: bytes | None) -> str:
    if cell is None:
        return "NULL"
    if element_oid in (_JSON, _JSONB):
        text = load_text(cell[1:] if element_oid == _JSONB else cell)
    else:
        text = print_value(load(cell), 6 if element_oid == _FLOAT4 else 15)
    if _NEEDS_QUOTES.search(text):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return text


def _print_list(elements: list[Any]) -> str:
    return "{" + ",".join([_print_list(item) if isinstance(item, list) else item for item in elements]) + "}"
