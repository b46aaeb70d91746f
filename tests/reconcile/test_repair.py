"""What is done about entries that differ, against sources and sinks that differ in every way."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.reconcile.compare import Difference, Kind, differs
from backend_watcher.reconcile.repair import KEYS_BYTES_MAX, NOT_UTF8, UNKNOWN_ROW, Key, plan, portions, to_be_found

KEYS = [(str(n),) for n in range(6)]


def name_of(key: Key) -> bytes:
    return b"p:" + key[0].encode()


rows = st.dictionaries(st.sampled_from(KEYS), st.tuples(st.integers(0, 2), st.booleans()))
"""Rows by key: a value, and whether the predicate takes it."""
entries = st.dictionaries(st.sampled_from([*map(name_of, KEYS), b"p:007"]), st.integers(0, 2))


def found(source: dict[Key, tuple[int, bool]], sink: dict[bytes, int]) -> list[Difference]:
    """Verify."""
    wanted = {name_of(key): value for key, (value, taken) in source.items() if taken}
    rows_of = {name_of(key): (key,) for key in source}
    looked = (
        differs(name, _bytes(wanted.get(name)), _bytes(sink.get(name))) for name in sorted(wanted.keys() | sink.keys())
    )
    return [Difference(one.name, one.kind, one.source, one.sink, rows_of.get(one.name, ())) for one in looked if one]


def _bytes(value: int | None) -> bytes | None:
    return None if value is None else b"%d" % value


def mended(
    source: dict[Key, tuple[int, bool]], sink: dict[bytes, int], rewrite: tuple[Key, ...], remove: tuple[Key, ...]
) -> dict[bytes, int]:
    """Do what capture and delivery do about keys: the row, a delete of one that is dropped, a delete of none."""
    sink = dict(sink)
    for key in (*rewrite, *remove):
        value, taken = source.get(key, (0, False))
        if taken:
            sink[name_of(key)] = value
        elif key in source or key in remove:
            sink.pop(name_of(key), None)
    return sink


@given(rows, rows, entries)
def test_what_differs_is_mended_and_nothing_else_is_touched(
    before: dict[Key, tuple[int, bool]], now: dict[Key, tuple[int, bool]], sink: dict[bytes, int]
) -> None:
    """Between what was verified and what is read anything may have changed at the source, which the sink is told."""
    differences = found(before, sink)
    by_name: dict[bytes, Key | str] = {name_of(key): key for key in KEYS} | {b"p:007": "no"}
    made = plan("cache", "public.p", differences, by_name)
    assert [one.difference for one in made.mended] + [one for one, _ in made.cannot] == sorted(
        differences, key=lambda one: one.name == b"p:007"
    )
    assert [(one.name, why) for one, why in made.cannot] == ([(b"p:007", "no")] if b"p:007" in sink else [])
    assert not set(made.rewrite) & set(made.remove)
    assert {name_of(key) for key in (*made.rewrite, *made.remove)} == {one.difference.name for one in made.mended}
    assert made.is_empty == (not made.mended)
    # The stream brings what is not as it was.
    for key in before.keys() | now.keys():
        if before.get(key) != now.get(key):
            value, taken = now.get(key, (0, False))
            if taken:
                sink[name_of(key)] = value
            elif key not in now:
                sink.pop(name_of(key), None)
    after = mended(now, sink, made.rewrite, made.remove)
    touched = {one.difference.name for one in made.mended}
    assert {name: value for name, value in after.items() if name not in touched} == {
        name: value for name, value in sink.items() if name not in touched
    }
    assert not [one for one in found(now, after) if one.name in touched]


def test_rows_that_an_extra_entry_may_have_been_of_are_not_its_own() -> None:
    extra = Difference(b"m:old", Kind.EXTRA, None, b"{}", (("3",),))
    missing = Difference(b"m:new", Kind.MISSING, b"{}", None, (("3",), ("4",)))
    lost = Difference(b"m:lost", Kind.DIFFERENT, b"{}", b"1")
    assert to_be_found([extra, missing, lost]) == [b"m:old", b"m:lost"]
    made = plan("cache", "public.p", [extra, missing, lost], {b"m:old": "not by its key"})
    assert (made.rewrite, made.remove) == ((("3",), ("4",)), ())
    assert [(one.name, why) for one, why in made.cannot] == [(b"m:old", "not by its key"), (b"m:lost", UNKNOWN_ROW)]
    again = plan("cache", "public.p", [lost], {b"m:lost": ("9",)})
    assert again.rewrite == (("9",),)


def test_a_key_of_both_kinds_is_looked_at_once() -> None:
    extra = Difference(b"p:3", Kind.EXTRA, None, b"{}")
    missing = Difference(b"p:4", Kind.MISSING, b"{}", None, (("3",), ("4",)))
    made = plan("cache", "public.p", [missing, extra], {b"p:3": ("3",)})
    assert (made.rewrite, made.remove) == ((("4",),), (("3",),))


def test_a_key_that_is_no_text_is_left_alone() -> None:
    strange = Difference(b"p:\xff", Kind.MISSING, b"{}", None, (("\udcff",),))
    made = plan("cache", "public.p", [strange], {})
    assert made.is_empty
    assert made.cannot == ((strange, NOT_UTF8),)


@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3).map(tuple)),
    st.integers(1, 5),
    st.integers(20, 200),
)
def test_keys_are_divided_into_requests_that_fit(keys: list[Key], keys_max: int, bytes_max: int) -> None:
    divided = list(portions(keys, keys_max, bytes_max))
    assert [key for portion in divided for key in portion] == keys
    for portion in divided:
        assert 1 <= len(portion) <= keys_max
        written = json.dumps(portion, ensure_ascii=False, separators=(",", ":"))
        assert len(portion) == 1 or len(written.encode()) <= bytes_max + len("[]")
    assert KEYS_BYTES_MAX < 64 << 10
