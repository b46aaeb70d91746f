"""Keys made from rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.errors import ConfigError, SinkRejected
from backend_watcher.events.envelope import writer_of
from backend_watcher.events.row import UNCHANGED, Row
from backend_watcher.sinks.template import KeyTemplate
from backend_watcher.testing.builders import change, table

TABLE = table(columns={"id": "int8", "tenant": "text", "made": "timestamptz", "token": "uuid"}, replica_identity="f")


def key(template: str, **values: object) -> bytes:
    row = change("insert", TABLE, new=values).new
    return KeyTemplate(template).key(writer_of(TABLE), row)


def test_columns_and_literals() -> None:
    assert key("product:{id}", id=7) == b"product:7"
    assert key("{tenant}/{id}.json", tenant="é:1", id=-7) == "é:1/-7.json".encode()
    assert key("{{x}}:{id}", id=1) == b"{x}:1"
    assert KeyTemplate("a:{id}:{tenant}").columns == ("id", "tenant")


def test_python_values_make_the_same_key() -> None:
    it = change("insert", TABLE, new={"id": 7, "tenant": 'a"b\\', "made": "2026-11-22 10:00:00.5+00"})
    assert it.new is not None
    made = Row.of(TABLE, it.new.to_dict() | {"made": it.new["made"]})
    template = KeyTemplate("p:{id}:{tenant}:{made}")
    assert template.key(writer_of(TABLE), it.new) == b'p:7:a"b\\:2026-11-22T10:00:00.5Z'
    assert template.key(writer_of(TABLE), made) == template.key(writer_of(TABLE), it.new)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("product", "names no column"),
        ("", "names no column"),
        ("product:{}", "{} names no column"),
        ("product:{0}", "{0} names no column"),
        ("product:{id:05d}", "'id' has a format"),
        ("product:{id!r}", "'id' has a format"),
        ("product:{id", "right would be"),
        ("product:id}", "right would be"),
        ("@product:{id}", "begins with '@'"),
    ],
)
def test_a_bad_template_is_refused_with_a_good_one(template: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyTemplate(template)
    assert fault in caught.value.message


def test_no_value_no_key() -> None:
    with pytest.raises(SinkRejected, match=r"key_null: public.products.tenant is NULL"):
        key("p:{tenant}", id=1)
    with pytest.raises(SinkRejected, match="key_unavailable") as caught:
        key("p:{tenant}:{id}", id=1, tenant=UNCHANGED)
    assert "REPLICA IDENTITY FULL" in caught.value.remedy
    with pytest.raises(SinkRejected, match="key_unavailable"):
        KeyTemplate("p:{id}").key(writer_of(TABLE), None)
    with pytest.raises(SinkRejected, match="key_reserved"):
        key("{tenant}", tenant="@x")


def test_an_unchanged_part_comes_from_the_old_row() -> None:
    it = change(
        "update", TABLE, new={"id": 1, "tenant": UNCHANGED}, old={"id": 1, "tenant": "t", "made": None, "token": None}
    )
    assert it.new is not None
    assert KeyTemplate("p:{tenant}:{id}").key(writer_of(TABLE), it.new, it.old) == b"p:t:1"


def test_what_a_truncate_looks_for() -> None:
    template = KeyTemplate("p*[1]:{id}:{tenant}:x")
    assert template.prefix == b"p*[1]:"
    assert template.glob() == rb"p\*\[1\]:*:*:x"
    matches = template.pattern(TABLE).fullmatch
    assert matches(b"p*[1]:-12:a\nb:x")
    assert not matches(b"p*[1]:twelve:a:x")
    assert KeyTemplate("p:{token}").pattern(TABLE).fullmatch(b"p:6b0b4a3c-7f0e-4a52-8f4d-08d3a2b3c4d5")
    assert not KeyTemplate("p:{id}").pattern(TABLE).fullmatch(b"p:7:reviews")


@given(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_every_key_is_found_by_its_pattern(id_: int, tenant: str) -> None:
    template = KeyTemplate("p-^:{id}:{tenant}")
    made = template.key(writer_of(TABLE), change("insert", TABLE, new={"id": id_, "tenant": tenant}).new)
    assert template.pattern(TABLE).fullmatch(made)


@pytest.mark.parametrize(
    ("template", "key", "cells"),
    [
        ("p:{id}", b"p:7", {"id": "7"}),
        ("p:{id}", b"p:07", {"id": "07"}),
        ("p:{id}", b"p:x", None),
        ("p:{id}", b"q:7", None),
        ("w:{tenant}", b"w:", {"tenant": ""}),
        ("w:{tenant}", b"w:\xff", None),
        ("{tenant}:{id}", b"a:b:7", {"tenant": "a:b", "id": "7"}),
        ("{tenant}:{made}", b"a:b", {"tenant": "a", "made": "b"}),
        ("{tenant}:{made}", b"a:b:c", None),
        ("{tenant}{id}", b"a17", None),
        (
            "{id}{token}",
            b"16b0b4a3c-7f0e-4a52-8f4d-08d3a2b3c4d5",
            {"id": "1", "token": "6b0b4a3c-7f0e-4a52-8f4d-08d3a2b3c4d5"},
        ),
        ("{id}/{id}", b"7/7", {"id": "7"}),
        ("{id}/{id}", b"7/8", None),
    ],
)
def test_a_key_is_divided_where_there_is_one_way(template: str, key: bytes, cells: dict[str, str] | None) -> None:
    assert KeyTemplate(template).cells(TABLE, key) == cells


@given(
    st.lists(st.text("a:b", max_size=4), min_size=3, max_size=3),
    st.lists(st.sampled_from(["", ":", "a"]), min_size=2, max_size=2),
)
def test_another_way_to_divide_a_key_is_always_seen(texts: list[str], between: list[str]) -> None:
    words = table(columns={"x": "text", "y": "text", "z": "text"}, key=("x", "y", "z"))
    key = "k" + texts[0] + between[0] + texts[1] + between[1] + texts[2]
    ways = {
        (key[1:i], key[i + len(between[0]) : j], key[j + len(between[1]) :])
        for i in range(1, len(key) + 1)
        for j in range(i + len(between[0]), len(key) + 1)
        if key[i:].startswith(between[0]) and key[j:].startswith(between[1])
    }
    found = KeyTemplate("k{x}" + between[0] + "{y}" + between[1] + "{z}").cells(words, key.encode())
    assert found == (dict(zip("xyz", texts, strict=True)) if len(ways) == 1 else None)
