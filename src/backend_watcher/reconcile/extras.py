"""
Which row an entry would be of that no row has: what delivery would have to say for the sink to remove it.

The sink reads a key out of the entry's name, the server says how it writes that key, and of the delete that would be
delivered then, behind the transforms, the sink says what it would touch. Only if that is the entry is the key returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend_watcher.decode.fetched import cells_of
from backend_watcher.errors import HandlerError, SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.reconcile.repair import Key
from backend_watcher.reconcile.source import Source, SourceTable
from backend_watcher.verifiable import Repairable, Verifiable

CANNOT_SAY = "its sink does not say which row an entry is of"
NO_VALUE = "its name holds what is no key of the table"
OTHER_NAME = "its name is not the one that a row with this key has"
DROPPED = "the transforms drop the delete of its row"
RAISES = "the transforms raise on the delete of its row"


async def keys_of_extras(
    source: Source,
    table: SourceTable,
    sink: Verifiable,
    passing: Callable[[Change], Change | None],
    names: Sequence[bytes],
) -> dict[bytes, Key | str]:
    """Return the key of each entry, or why there is none. Raises a SourceError."""
    if not isinstance(sink, Repairable):
        return dict.fromkeys(names, CANNOT_SAY)
    found: dict[bytes, Key | str] = {}
    asked: list[tuple[bytes, Key]] = []
    for name, cells in zip(names, sink.keys_of(table.shape, names), strict=True):
        if isinstance(cells, str):
            found[name] = cells
        elif set(cells) != set(table.read.key):
            found[name] = f"{table.shape.full_name} is told by {', '.join(table.read.key)}"
        else:
            asked.append((name, tuple(cells[column] for column in table.read.key)))
    lines = await source.written(table, [key for _, key in asked])
    for (name, _), line in zip(asked, lines, strict=True):
        found[name] = NO_VALUE if line is None else _checked(table, sink, passing, name, line)
    return found


def _checked(
    table: SourceTable, sink: Verifiable, passing: Callable[[Change], Change | None], name: bytes, line: bytes
) -> Key | str:
    (delete,) = table.gone([line])
    try:
        passed = passing(delete)
    except HandlerError:
        return RAISES
    if passed is None:
        return DROPPED
    try:
        touched = sink.touches(passed)
    except SinkRejected:
        return OTHER_NAME
    if set(touched) != {name}:
        return OTHER_NAME
    return tuple(text or "" for text in cells_of(line))
