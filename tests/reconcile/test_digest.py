"""The digest, against sums over sorted entries; the set of names, against a set."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.reconcile.digest import Digest, NameSet, hash_of

entries = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)))


def digest(pairs: list[tuple[bytes, bytes]]) -> Digest:
    made = Digest()
    for name, value in pairs:
        made.add(name, value)
    return made


@given(entries, st.randoms(use_true_random=False), st.integers(0, 20))
def test_neither_order_nor_pieces_matter(pairs: list[tuple[bytes, bytes]], dice: random.Random, at: int) -> None:
    mixed = pairs.copy()
    dice.shuffle(mixed)
    parts = digest(mixed[:at])
    parts.join(digest(mixed[at:]))
    assert digest(pairs) == parts
    assert (str(digest(pairs)), hash(digest(pairs))) == (str(parts), hash(parts))
    assert parts.total == sum(hash_of(*pair) for pair in sorted(pairs)) % (1 << 64)


@given(entries, entries)
def test_other_entries_have_another_digest(one: list[tuple[bytes, bytes]], other: list[tuple[bytes, bytes]]) -> None:
    assert (digest(one) == digest(other)) == (sorted(one) == sorted(other))


def test_bytes_do_not_move_from_name_to_value() -> None:
    assert digest([(b"a", b"bc")]) != digest([(b"ab", b"c")])
    assert digest([(b"1:a", b"")]) != digest([(b"1", b":a")])
    assert len(str(digest([]))) == 16


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_what_servers_sum_up_is_taken_in_whatever_its_sign(sums: list[int]) -> None:
    one, other = Digest(), Digest()
    for number in sums:
        one.take(1, number)
    other.take(len(sums), sum(sums))
    assert one == other
    assert (one.count, len(str(one))) == (len(sums), 16)


@given(st.lists(st.binary(max_size=3)), st.lists(st.binary(max_size=3)))
def test_names_are_known_that_were_added(added: list[bytes], asked: list[bytes]) -> None:
    names = NameSet()
    for name in added:
        names.add([name])
        assert name in names
    assert [name in names for name in asked] == [name in set(added) for name in asked]
    assert len(names) == len(added)
