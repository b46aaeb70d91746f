"""
What is to be done about entries that differ: which rows are read again, and which keys are said to have none. Pure.

A row that is missing in the sink, or stands there with another value, is read again by its key. Of an entry without a
row the key has to be found out first, from its name (`extras.py`): then, where the key has no row in the chunk that is
read, the sink gets a delete of it; and where it has one after all, the sink gets the row. So nothing here has to be
true any more when it is done: what is decided is which keys are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend_watcher.reconcile.compare import Difference, Kind

Key = tuple[str, ...]
"""The columns that rows are found by, as texts."""

KEYS_MAX = 1_000
KEYS_BYTES_MAX = 24 << 10
"""Of one request to the process that runs; it takes 64 KiB."""

_PER_KEY_BYTES = 8
_TEXT_BYTES = 4
"""What JSON adds to a key, and to each of its texts, at most; what it escapes is counted by itself."""

UNKNOWN_ROW = "which row it is of is not known"
NOT_UTF8 = "its key is not UTF-8"


@dataclass(frozen=True, slots=True)
class Mended:
    """A difference, and the keys that are looked at because of it."""

    difference: Difference
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is to be done about one table of one subscription.

    `rewrite` are keys whose rows are read again, `remove` those of entries without a row; none is in both. Of what
    `cannot` be mended it is said why.
    """

    subscription: str
    table: str
    rewrite: tuple[Key, ...]
    remove: tuple[Key, ...]
    mended: tuple[Mended, ...]
    cannot: tuple[tuple[Difference, str], ...]

    @property
    def is_empty(self) -> bool:
        """Say that nothing can be done."""
        return not self.rewrite and not self.remove


def to_be_found(differences: Sequence[Difference]) -> list[bytes]:
    """Return the names of entries whose row is not known. Rows that an extra one may have been of are not its own."""
    return [one.name for one in differences if one.kind is Kind.EXTRA or not one.keys]


def plan(subscription: str, table: str, differences: Sequence[Difference], by_name: Mapping[bytes, Key | str]) -> Plan:
    """Decide what is done about each difference. `by_name` has the key of each that was to be found, or why not."""
    mended: list[Mended] = []
    cannot: list[tuple[Difference, str]] = []
    rewrite: dict[Key, None] = {}
    remove: dict[Key, None] = {}
    for one in differences:
        keys, why = one.keys, ""
        if one.name in to_be_found([one]):
            found = by_name.get(one.name, UNKNOWN_ROW)
            keys, why = ((), found) if isinstance(found, str) else ((found,), "")
        if not why and any(_is_broken(text) for key in keys for text in key):
            why = NOT_UTF8
        if why:
            cannot.append((one, why))
            continue
        mended.append(Mended(one, keys))
        (remove if one.kind is Kind.EXTRA else rewrite).update(dict.fromkeys(keys))
    # Looked at with the others that may have no row, a row is read all the same.
    kept = tuple(key for key in rewrite if key not in remove)
    return Plan(subscription, table, kept, tuple(remove), tuple(mended), tuple(cannot))


def portions(
    keys: Sequence[Key], keys_max: int = KEYS_MAX, bytes_max: int = KEYS_BYTES_MAX
) -> Iterator[tuple[Key, ...]]:
    """Divide keys into as few requests as they fit in, in their order; one that is larger goes alone."""
    portion: list[Key] = []
    total = 0
    for key in keys:
        size = _PER_KEY_BYTES + sum(_TEXT_BYTES + _json_bytes(text) for text in key)
        if portion and (len(portion) == keys_max or total + size > bytes_max):
            yield tuple(portion)
            portion, total = [], 0
        portion.append(key)
        total += size
    if portion:
        yield tuple(portion)


def _json_bytes(text: str) -> int:
    # A control character takes six bytes, a quote or a backslash two.
    return len(text.encode()) + 5 * sum(character < " " or character in '"\\\x7f' for character in text)


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
