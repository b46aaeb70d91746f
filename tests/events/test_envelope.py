"""The outside form: what it says, and that bytes and Python values are written the same."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.tables import make_table
from backend_watcher.events.change import Change
from backend_watcher.events.envelope import Incomplete, RowWriter, change_to_json, row_to_json, value_to_json, writer_of
from backend_watcher.events.row import ABSENT, UNCHANGED, Row
from backend_watcher.events.table import Table
from backend_watcher.testing.builders import change, table, transaction

OIDS = {
    "id": 20,
    "small": 21,
    "kind": 25,
    "price": 1700,
    "share": 701,
    "live": 16,
    "attrs": 3802,
    "notes": 114,
    "made": 1184,
    "local": 1114,
    "day": 1082,
    "hour": 1083,
    "hour_zone": 1266,
    "token": 2950,
    "photo": 17,
    "tags": 1009,
    "counts": 1016,
    "length": 1186,
    "mood": 99_999,
}
EVERY = make_table(1, "public", "every", "d", [(n, oid, -1, n == "id") for n, oid in OIDS.items()], ["id"])


def raw_row(of: Table, **texts: bytes | None) -> Row:
    """A row of the very text a server sends."""
    data = b"\0" + len(of.columns).to_bytes(2, "big")
    for column in of.columns:
        text = texts.get(column.name)
        data += b"n" if text is None else b"t" + len(text).to_bytes(4, "big") + text
    return Row(of, data, 1, False)


def written(name: str, text: bytes) -> bytes:
    """What one value becomes, still as JSON text."""
    row = raw_row(EVERY, **{name: text})
    whole = RowWriter(EVERY, [name]).json(row)
    assert whole.startswith(b'{"' + name.encode() + b'":')
    json.loads(whole)
    return whole[len(name) + 4 : -1]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("id", b"-9223372036854775808", b"-9223372036854775808"),
        ("kind", 'a "b" \\ é\n\x01'.encode(), '"a \\"b\\" \\\\ é\\n\\u0001"'.encode()),
        ("price", b"12345678901234567890.10", b'"12345678901234567890.10"'),
        ("price", b"NaN", b'"NaN"'),
        ("share", b"NaN", b'"NaN"'),
        ("share", b"-Infinity", b'"-Infinity"'),
        ("share", b"0.1", b"0.1"),
        ("live", b"t", b"true"),
        ("live", b"f", b"false"),
        ("attrs", b'{"a": 1e400, "b": 1.10}', b'{"a": 1e400, "b": 1.10}'),
        ("notes", b'{"a":\n 1.10,\r\n "b\\n": " "}', b'{"a":1.10,"b\\n":" "}'),
        ("made", b"2026-11-22 10:00:00.5+00", b'"2026-11-22T10:00:00.5Z"'),
        ("made", b"2026-11-22 10:00:00+00", b'"2026-11-22T10:00:00Z"'),
        ("made", b"2026-11-22 10:00:00.25+05:30", b'"2026-11-22T04:30:00.25Z"'),
        ("made", b"2026-11-22 10:00:00-03", b'"2026-11-22T13:00:00Z"'),
        ("made", b"infinity", b'"infinity"'),
        ("made", b"-infinity", b'"-infinity"'),
        ("made", b"0044-03-15 10:00:00+00 BC", b'"0044-03-15 10:00:00+00 BC"'),
        ("made", b"294276-12-31 23:59:59+00", b'"294276-12-31 23:59:59+00"'),
        ("made", b"9999-12-31 23:59:59-03", b'"9999-12-31 23:59:59-03"'),
        ("local", b"2026-11-22 10:00:00.000001", b'"2026-11-22T10:00:00.000001"'),
        ("day", b"2026-11-22", b'"2026-11-22"'),
        ("day", b"5874897-12-31", b'"5874897-12-31"'),
        ("hour", b"24:00:00", b'"24:00:00"'),
        ("hour_zone", b"10:00:00.5+05:30", b'"10:00:00.5+05:30"'),
        ("token", b"6b0b4a3c-7f0e-4a52-8f4d-08d3a2b3c4d5", b'"6b0b4a3c-7f0e-4a52-8f4d-08d3a2b3c4d5"'),
        ("photo", b"\\x00ff10", b'"AP8Q"'),
        ("tags", b'{a,"b c",NULL}', b'["a","b c",null]'),
        ("counts", b"{{1,2},{3,4}}", b"[[1,2],[3,4]]"),
        ("length", b"1 year 2 mons -3 days +04:05:06.7", b'"1 year 2 mons -3 days +04:05:06.7"'),
        ("mood", b'so "so"', b'"so \\"so\\""'),
    ],
)
def test_every_type_has_its_form(name: str, text: bytes, expected: bytes) -> None:
    assert written(name, text) == expected


moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
numerics = st.decimals(allow_nan=True, allow_infinity=True).filter(lambda d: not d.is_snan())
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = {
    "id": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(-(2**15), 2**15 - 1),
    "kind": texts,
    "price": numerics,
    "share": st.floats(),
    "live": st.booleans(),
    "attrs": st.recursive(st.integers() | st.booleans() | texts, lambda s: st.lists(s) | st.dictionaries(texts, s)),
    "made": moments,
    "local": moments,
    "day": st.dates(),
    "hour": st.times(),
    "token": st.uuids(),
    "photo": st.binary(),
    "counts": st.lists(st.integers(-(2**63), 2**63 - 1)),
    "length": st.timedeltas(timedelta(days=-1), timedelta(days=1)),
}


def as_server_writes(name: str, value: Any) -> bytes:
    if name == "attrs":
        return msgspec.json.encode(value)
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, datetime):
        text = value.isoformat(" ")
        return ((text.rstrip("0") if value.microsecond else text) + ("+00" if name == "made" else "")).encode()
    if isinstance(value, time):
        return (value.isoformat().rstrip("0") if value.microsecond else value.isoformat()).encode()
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, Decimal):
        return (format(value, "f") if value.is_finite() else str(value).replace("-NaN", "NaN")).encode()
    if isinstance(value, float):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value)).encode()
    if isinstance(value, timedelta):
        return interval(value)
    if name == "counts":
        return b"{" + ",".join(map(str, value)).encode() + b"}"
    return str(value).encode()


def interval(value: timedelta) -> bytes:
    micros = value // timedelta(microseconds=1)
    days, rest = divmod(abs(micros), 86_400_000_000)
    clock = f"{rest // 3_600_000_000:02d}:{rest // 60_000_000 % 60:02d}:{rest // 1_000_000 % 60:02d}"
    if rest % 1_000_000:
        clock += f".{rest % 1_000_000:06d}".rstrip("0")
    sign = "-" if micros < 0 else ""
    parts = [f"{sign}{days} day{'' if days == 1 and not sign else 's'}"] if days else []
    if rest or not days:
        parts.append(sign + clock)
    return " ".join(parts).encode()


@given(st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}))
def test_bytes_and_python_values_are_written_the_same(values: dict[str, Any]) -> None:
    if isinstance(values["price"], Decimal) and values["price"].is_nan():
        values["price"] = Decimal("NaN")
    raw = raw_row(EVERY, **{n: None if v is None else as_server_writes(n, v) for n, v in values.items()})
    if values["made"] is not None:
        values["made"] = values["made"].replace(tzinfo=UTC)
    made = Row.of(EVERY, {**dict.fromkeys(OIDS), **values})
    decoded = Row.of(EVERY, raw.to_dict())
    writer = writer_of(EVERY)
    assert row_to_json(raw) == row_to_json(made) == row_to_json(decoded)
    for name in OIDS:
        assert writer.text(raw, name) == writer.text(made, name) == writer.text(decoded, name)
    json.loads(row_to_json(raw))


@given(texts)
def test_text_is_bare(value: str) -> None:
    row = change(new={"id": 1, "name": value}).new
    assert row is not None
    assert writer_of(row.table).text(row, "name") == value.encode()


def test_a_datetime_of_any_zone_is_utc() -> None:
    moment = datetime(2026, 11, 22, 10, tzinfo=timezone(timedelta(hours=2)))
    assert value_to_json(moment) == b'"2026-11-22T08:00:00Z"'


def test_a_document_python_has_no_form_for_is_embedded_as_it_is() -> None:
    deep = b"[" * 500 + b"]" * 500
    row = raw_row(EVERY, id=b"1", attrs=deep)
    assert row_to_json(Row.of(EVERY, row.to_dict())) == row_to_json(row)


def test_values_python_alone_has() -> None:
    assert value_to_json((1, None, UUID(int=1))) == b'[1,null,"00000000-0000-0000-0000-000000000001"]'
    assert value_to_json({"a": Decimal("1.0")}, 3802) == b'{"a":1.0}'
    assert value_to_json(date(44, 1, 2)) == b'"0044-01-02"'
    assert value_to_json(object).startswith(b'"<class')


def test_the_envelope_says_everything() -> None:
    within = transaction(0x16B3748, 5_000_000, 700)
    at = table("shop.products", {"id": "int8", "name": "text", "blob": "text"})
    it = change("update", at, new={"id": 2, "name": None, "blob": UNCHANGED}, old={"id": 1}, within=within, ordinal=3)
    assert json.loads(change_to_json(it)) == {
        "version": 1,
        "event_id": "7000000000000000001:test_slot:0/16B3748:3",
        "operation": "update",
        "schema": "shop",
        "table": "products",
        "position": "0/16B3748:3",
        "commit_time": "2000-01-01T00:00:05Z",
        "xid": 700,
        "key": {"id": 2},
        "key_before": {"id": 1},
        "new": {"id": 2, "name": None},
        "old": {"id": 1},
        "unchanged": ["blob"],
    }


def test_the_envelope_says_nothing_it_does_not_know() -> None:
    assert json.loads(change_to_json(change("truncate"))) | {"event_id": 0, "commit_time": 0} == {
        "version": 1,
        "event_id": 0,
        "operation": "truncate",
        "schema": "public",
        "table": "products",
        "position": "0/1000:0",
        "commit_time": 0,
        "xid": 700,
        "key": {},
        "new": None,
        "old": None,
    }
    gone = json.loads(change_to_json(change("delete", old={"id": 7})))
    assert (gone["key"], gone["new"], gone["old"]) == ({"id": 7}, None, {"id": 7})


def test_the_envelope_is_one_line() -> None:
    at = table("public.notes", {"id": "int8", "body": "json"})
    row = raw_row(at, id=b"1", body=b'{"a":\n1}')
    new = change("insert", at, new={"id": 1})
    line = change_to_json(new.replace(new={"id": 1, "body": "a\nb"}))
    assert b"\n" not in line
    assert b"\n" not in row_to_json(row)


@pytest.mark.parametrize("replaced", [False, True])
def test_an_unchanged_value_comes_from_the_old_row_or_is_missed(replaced: bool) -> None:
    at = table("public.p", {"id": "int8", "blob": "jsonb"}, replica_identity="f")
    new: dict[str, Any] = {"id": 1, "blob": UNCHANGED}
    it: Change = change("update", at, new=new, old={"id": 1, "blob": {"a": 1}})
    if replaced:
        it = it.replace(new=new, old={"id": 1, "blob": {"a": 1}})
    assert it.new is not None
    writer = writer_of(at)
    assert json.loads(writer.json(it.new, it.old, True)) == {"id": 1, "blob": {"a": 1}}
    assert json.loads(row_to_json(it.new)) == {"id": 1}
    assert writer.unchanged(it.new) == ["blob"]
    assert writer.text(it.new, "blob") is UNCHANGED
    with pytest.raises(Incomplete) as caught:
        writer.json(it.new, None, True)
    assert caught.value.column == "blob"


def test_an_absent_value_is_not_null() -> None:
    it = change("delete", old={"id": 7})
    assert it.old is not None
    assert row_to_json(it.old) == b'{"id":7}'
    assert writer_of(it.table).text(it.old, "name") is ABSENT
    with pytest.raises(Incomplete):
        writer_of(it.table).json(it.old, None, True)


def test_columns_can_be_chosen() -> None:
    it = change("insert", new={"id": 7, "name": "x", "stock": 1})
    assert it.new is not None
    assert writer_of(it.table, ("stock", "id")).json(it.new) == b'{"id":7,"stock":1}'
    assert writer_of(it.table, ()).json(it.new) == b"{}"
    assert writer_of(it.table, ("name",)).texts(it.new) == [("name", b"x")]
    with pytest.raises(ValueError, match="no column 'nmae'"):
        writer_of(it.table, ("nmae",))
