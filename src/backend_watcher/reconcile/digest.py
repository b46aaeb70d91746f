"""
A digest of entries that does not depend on their order, and a set of names that takes eight bytes for each. Pure.

The digest is the sum, modulo 2**64, of a hash of each entry: both sides may be read in any order and in pieces, and an
entry can be taken out again. Two sides that differ in an entry have the same digest with a chance of 2**-64. It is
shown and compared between runs; what is *equal* is decided by the bytes themselves.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

_MASK = (1 << 64) - 1
_PARTS = 256
"""So many arrays, each sorted by itself: sorting makes a Python number of each of its hashes for a moment."""


def hash_of(name: bytes, value: bytes) -> int:
    """Return 64 bits of an entry; name and value cannot be taken for others by moving bytes between them."""
    return int.from_bytes(blake2b(b"%d:%b%b" % (len(name), name, value), digest_size=8).digest())


class Digest:
    """How many entries there are, and the sum of their hashes."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Take an entry in."""
        self.count += 1
        self.total = (self.total + hash_of(name, value)) & _MASK

    def take(self, count: int, total: int) -> None:
        """Take in what a server has summed up, by a hash of its own."""
        self.count += count
        self.total = (self.total + total) & _MASK

    def join(self, other: Digest) -> None:
        """Take in what another one has."""
        self.count += other.count
        self.total = (self.total + other.total) & _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and (self.count, self.total) == (other.count, other.total)

    def __hash__(self) -> int:
        return hash((self.count, self.total))

    def __str__(self) -> str:
        return f"{self.total:016x}"


class NameSet:
    """
    Names that were seen, as 64-bit hashes: 16 MB for two million.

    A name that was not added is taken for one that was with a chance of their number divided by 2**64.
    """

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(_PARTS)]
        self._sorted = True

    def add(self, names: Iterable[bytes]) -> None:
        """Take names in; one may come again."""
        self._sorted = False
        parts = self._parts
        for name in names:
            number = hash_of(name, b"")
            parts[number & (_PARTS - 1)].append(number)

    def __contains__(self, name: bytes) -> bool:
        if not self._sorted:
            self._parts = [array("Q", sorted(part)) for part in self._parts]
            self._sorted = True
        number = hash_of(name, b"")
        part = self._parts[number & (_PARTS - 1)]
        at = bisect_left(part, number)
        return at < len(part) and part[at] == number

    def __len__(self) -> int:
        return sum(map(len, self._parts))
