"""Which entries differ: missing, extra, or with another value. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from backend_watcher.events.change import Change
from backend_watcher.verifiable import EXPIRED

MASKED = "(masked)"
VALUE_CHARACTERS_MAX = 2_000
"""What is shown of one value."""


class Kind(StrEnum):
    """In what way an entry differs."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry with both versions: None where one side has nothing. `keys` are the rows that it is, or may be, of."""

    name: bytes
    kind: Kind
    source: bytes | None
    sink: bytes | None
    keys: tuple[tuple[str, ...], ...] = ()

    def of_rows(self, keys: AbstractSet[tuple[str, ...]]) -> Difference:
        """Return the same with the rows that it may be of."""
        return replace(self, keys=tuple(sorted(keys)))


def differs(name: bytes, source: bytes | None, sink: bytes | None) -> Difference | None:
    """Compare an entry. What has expired is as it should be, whatever the source has."""
    if source == sink or sink == EXPIRED:
        return None
    kind = Kind.MISSING if sink is None else Kind.EXTRA if source is None else Kind.DIFFERENT
    return Difference(name, kind, source, sink)


def compare(
    source: Mapping[bytes, bytes | None], names: Sequence[bytes], held: Sequence[bytes | None]
) -> list[Difference]:
    """Compare entries by their names; `held` has what the sink has under each."""
    found = (differs(name, source.get(name), value) for name, value in zip(names, held, strict=True))
    return [difference for difference in found if difference is not None]


def shown(difference: Difference, masked: AbstractSet[str]) -> tuple[Any, Any]:
    """
    Return both versions for people, None for nothing.

    The source's has passed the transforms, so what they mask is masked. The sink may hold what stood there before it
    was: a masked field that is not as it should be is not shown.
    """
    source, sink = _loaded(difference.source), _loaded(difference.sink)
    if isinstance(sink, dict):
        other = source if isinstance(source, dict) else {}
        sink = {
            name: MASKED if name in masked and (name not in other or other[name] != value) else value
            for name, value in sink.items()
        }
    elif sink is not None and masked:
        sink = MASKED
    return _clipped(source), _clipped(sink)


def masked_in(change: Change, passed: Change) -> set[str]:
    """Return the columns that have another value behind the transforms, or none."""
    new, old = passed.new, change.new
    if new is None or old is None:
        return set()
    return {name for name in old if not new.has_value(name) or new.differs(old, name)}


def _loaded(value: bytes | None) -> Any:
    if value is None:
        return None
    text = value.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text  # somebody else wrote it


def _clipped(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name)[:VALUE_CHARACTERS_MAX]: _clipped(one) for name, one in value.items()}
    if isinstance(value, str) and len(value) > VALUE_CHARACTERS_MAX:
        return f"{value[:VALUE_CHARACTERS_MAX]}… ({len(value)} characters)"
    return value
