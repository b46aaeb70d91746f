r"""
Rows that COPY brought from a table become messages like the stream's, so that the same bytes hold the same values.

COPY's text form is the one the stream has (manual, COPY, "Text Format"): each column as its type's output function
writes it, tabs between, a backslash before what would be mistaken, `\N` for NULL. A message is laid out
like an Insert, and its kind is `f`. Of a key that no row has comes a message of the kind `g`, laid out like the
Delete of a row whose key was sent.

Compiled where a C compiler is at hand (`fetched.pxd` beside this file).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from itertools import starmap

from backend_watcher.errors import ProtocolError

XLOG_HEADER = b"w" + bytes(24)
"""What stands before each message; of these rows the server said nothing there."""

_SHORT_MAX = 1024
_SHORT = list(starmap(struct.Struct(">cI").pack, ((b"t", size) for size in range(_SHORT_MAX))))
_SIZE = struct.Struct(">cI")
_NULL = b"\\N"

_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def fetched_rows(relation_oid: int, columns: int, lines: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """
    Return the messages of rows, end to end, and their sizes. A line is one CopyData of COPY's text form.

    Raises ProtocolError where a line has another number of columns.
    """
    head = XLOG_HEADER + b"f" + struct.pack(">IcH", relation_oid, b"N", columns)
    base = len(head)
    parts: list[bytes] = []
    sizes: list[int] = []
    add = parts.append
    for line in lines:
        cells = line[:-1].split(b"\t") if columns else []
        if len(cells) != columns or not line.endswith(b"\n"):
            raise ProtocolError(f"COPY brought a row of {len(cells)} columns instead of {columns}", message_type="d")
        add(head)
        total = base
        escaped = b"\\" in line
        for cell in cells:
            if escaped and b"\\" in cell:
                if cell == _NULL:
                    add(b"n")
                    total += 1
                    continue
                cell = _ESCAPE.sub(_unescape, cell)
            size = len(cell)
            add(_SHORT[size] if size < _SHORT_MAX else _SIZE.pack(b"t", size))
            add(cell)
            total += 5 + size
        sizes.append(total)
    return b"".join(parts), sizes


def gone_rows(
    relation_oid: int, columns: int, places: Sequence[int], lines: Sequence[bytes]
) -> tuple[bytes, list[int]]:
    """
    Return the messages of keys that no row has, end to end, and their sizes.

    A line is one CopyData of COPY's text form; its columns stand at `places` among those of the table. Raises
    ProtocolError where it has another number of columns, or a NULL.
    """
    head = XLOG_HEADER + b"g" + struct.pack(">IcH", relation_oid, b"K", columns)
    messages: list[bytes] = []
    for line in lines:
        texts = [_text_of(cell) for cell in line.rstrip(b"\n").split(b"\t")]
        if len(texts) != len(places) or None in texts:
            raise ProtocolError(
                f"COPY brought a key of {len(texts)} columns instead of {len(places)}", message_type="d"
            )
        cells = [b"n"] * columns
        for place, text in zip(places, texts, strict=True):
            assert text is not None
            cells[place] = _SIZE.pack(b"t", len(text)) + text
        messages.append(head + b"".join(cells))
    return b"".join(messages), [len(message) for message in messages]


def cells_of(line: bytes) -> list[str | None]:
    """Return the texts of a line, None for NULL; bytes that are not UTF-8 are kept as surrogates."""
    texts = map(_text_of, line.rstrip(b"\n").split(b"\t"))
    return [text.decode("utf-8", "surrogateescape") if text is not None else None for text in texts]


def key_texts(line: bytes, places: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return the texts of a key, which has no NULL: the line's at these places, or all of a line that is a key."""
    cells = cells_of(line)
    if places is not None:
        cells = [cells[place] for place in places]
    return tuple(cell if cell is not None else "" for cell in cells)


def _text_of(cell: bytes) -> bytes | None:
    return _ESCAPE.sub(_unescape, cell) if cell != _NULL else None


def _unescape(match: re.Match[bytes]) -> bytes:
    # The server writes a backslash and these letters only, though it would read more.
    what = match[1]
    return _ESCAPES.get(what, what)


def without(data: bytes, sizes: Sequence[int], leave_out: Callable[[int], bool]) -> tuple[bytes, list[int]]:
    """Return a run of messages without those whose number is to be left out."""
    parts: list[bytes] = []
    kept: list[int] = []
    begin = at = 0
    for number, size in enumerate(sizes):
        if leave_out(number):
            parts.append(data[begin:at])
            begin = at + size
        else:
            kept.append(size)
        at += size
    parts.append(data[begin:at])
    return b"".join(parts), kept
