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
