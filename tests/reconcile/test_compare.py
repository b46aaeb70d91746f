"""What differs, against the plainest way to say it; and what is shown of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.reconcile.compare import (
    MASKED,
    VALUE_CHARACTERS_MAX,
    Difference,
    Kind,
    compare,
    differs,
    masked_in,
    shown,
)
from backend_watcher.testing.builders import change
from backend_watcher.verifiable import EXPIRED

values = st.sampled_from([None, b"1", b"2"])
names = st.sampled_from([b"a", b"b", b"c", b"d"])


@given(st.dictionaries(names, values), st.dictionaries(names, st.sampled_from([None, b"1", b"2", EXPIRED])))
def test_it_finds_what_differs(source: dict[bytes, bytes | None], sink: dict[bytes, bytes | None]) -> None:
    asked = sorted(source.keys() | sink.keys())
    found = {one.name: one.kind for one in compare(source, asked, [sink.get(name) for name in asked])}
    there = {name for name, value in source.items() if value is not None}
    held = {name for name, value in sink.items() if value not in (None, EXPIRED)}
    gone = {name for name in asked if sink.get(name) is None}
    assert {name for name, kind in found.items() if kind is Kind.MISSING} == there & gone
    assert {name for name, kind in found.items() if kind is Kind.EXTRA} == held - there
    assert {name for name, kind in found.items() if kind is Kind.DIFFERENT} == {
        name for name in there & held if source[name] != sink[name]
    }


def test_what_has_expired_is_as_it_should_be() -> None:
    assert differs(b"a", b"1", EXPIRED) is None
    assert differs(b"a", None, EXPIRED) is None


def test_both_versions_are_shown() -> None:
    one = Difference(b"a", Kind.DIFFERENT, b'{"id": 1, "n": null}', b'{"id": 1, "n": 2}')
    assert shown(one, frozenset()) == ({"id": 1, "n": None}, {"id": 1, "n": 2})
    assert shown(Difference(b"a", Kind.EXTRA, None, b"\xffno JSON"), frozenset()) == (None, "\ufffdno JSON")


def test_a_masked_field_that_the_sink_holds_unmasked_is_not_shown() -> None:
    masked = frozenset({"secret"})
    one = Difference(b"a", Kind.DIFFERENT, b'{"secret": "***"}', b'{"secret": "cleartext", "n": 1}')
    assert shown(one, masked) == ({"secret": "***"}, {"secret": MASKED, "n": 1})
    same = Difference(b"a", Kind.DIFFERENT, b'{"secret": "***", "n": 2}', b'{"secret": "***", "n": 1}')
    assert shown(same, masked)[1] == {"secret": "***", "n": 1}
    assert shown(Difference(b"a", Kind.EXTRA, None, b'{"secret": "cleartext"}'), masked)[1] == {"secret": MASKED}
    assert shown(Difference(b"a", Kind.EXTRA, None, b"cleartext"), masked)[1] == MASKED


def test_long_values_are_cut() -> None:
    long = b'{"a": "' + b"x" * 5000 + b'"}'
    source, _ = shown(Difference(b"a", Kind.MISSING, long, None), frozenset())
    assert source["a"].startswith("x" * VALUE_CHARACTERS_MAX)
    assert source["a"].endswith("(5000 characters)")


def test_what_is_masked_is_seen_by_its_value() -> None:
    row = change("read", new={"id": 1, "name": "a", "stock": 2})
    passed = row.replace(new={"id": 1, "name": "***"})
    assert masked_in(row, passed) == {"name", "stock"}
    assert masked_in(row, row) == masked_in(change("delete", old={"id": 1}), passed) == set()
