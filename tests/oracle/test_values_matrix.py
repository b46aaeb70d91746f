"""Every type and its edges: text and binary agree, and the server takes the value back unchanged."""

from typing import Any

import pytest
from values_cases import ARRAYS, CASES, TEXT_ARRAYS, TEXT_CASES
from values_forms import dump, dump_array, dump_json, same

from backend_watcher.decode.values import is_binary_equal, load_binary_of, load_text_of
from backend_watcher.decode.values_own import PostgresText
from backend_watcher.decode.values_types import TYPES


def flatten(cases: dict[str, list[str]]) -> list[Any]:
    return [pytest.param(kind, text, id=f"{kind}-{text[:40]!a}") for kind, texts in cases.items() for text in texts]


def skip_unless_known(oracle: Any, kind: str, text: str) -> None:
    if kind.startswith("interval") and "infinity" in text and oracle.version < 170000:
        pytest.skip("infinite intervals came with PostgreSQL 17")
    if kind.startswith("interval") and "2562047788" in text and oracle.version < 150000:
        pytest.skip("reading back an interval of so many hours came with PostgreSQL 15")


@pytest.mark.parametrize(("kind", "text"), flatten(CASES))
def test_scalar(oracle: Any, kind: str, text: str) -> None:
    skip_unless_known(oracle, kind, text)
    printed, binary = oracle.print_both(text, kind)
    oid = oracle.oid_of(kind)
    value = load_text_of(oid)(printed)
    assert is_binary_equal(oid)
    assert same(value, load_binary_of(oid)(binary))
    if kind == "json":
        # Spaces, doubled keys and escapes are how a value was written, not what it is.
        if "ud800" not in text and "u0000" not in text:
            assert oracle.print_text(dump_json(value), "jsonb") == oracle.print_text(text, "jsonb")
    else:
        assert oracle.print_text((dump_json if kind == "jsonb" else dump)(value), kind) == printed


@pytest.mark.parametrize(("kind", "text"), flatten(ARRAYS))
def test_array(oracle: Any, kind: str, text: str) -> None:
    skip_unless_known(oracle, kind, text)
    printed, binary = oracle.print_both(text, kind)
    oid = oracle.oid_of(kind)
    value = load_text_of(oid)(printed)
    assert isinstance(value, PostgresText if printed.startswith(b"[") else list)
    assert same(value, load_binary_of(oid)(binary))
    if isinstance(value, PostgresText):
        assert value.encode() == printed
    element = dump_json if kind.startswith("json") else dump
    again = oracle.print_text(dump_array(value, element), kind)
    assert same(load_text_of(oid)(again), value)


@pytest.mark.parametrize(("kind", "text"), flatten(TEXT_CASES))
def test_type_without_a_python_value(oracle: Any, kind: str, text: str) -> None:
    printed, binary = oracle.print_both(text, kind)
    oid = oracle.oid_of(kind)
    assert load_text_of(oid)(printed) == printed.decode()
    assert load_binary_of(oid)(binary) == binary
    assert not is_binary_equal(oid)
    assert oracle.print_text(printed.decode(), kind) == printed


@pytest.mark.parametrize(("kind", "text"), flatten(TEXT_ARRAYS))
def test_array_of_a_type_without_a_python_value(oracle: Any, kind: str, text: str) -> None:
    printed, binary = oracle.print_both(text, kind)
    oid = oracle.oid_of(kind)
    value = load_text_of(oid)(printed)
    assert isinstance(value, PostgresText if printed.startswith(b"[") else list)
    assert load_binary_of(oid)(binary) == binary
    assert oracle.print_text(dump_array(value, dump), kind) == printed


def test_every_built_in_type_is_asked_for() -> None:
    asked = {kind.partition("(")[0].strip('"') for kind in (*CASES, *TEXT_CASES)}
    assert set(TYPES) - asked == {"xml", "aclitem"}, "these two are in values_made.py"


@pytest.mark.parametrize("byte", [-128, -23, -1])
def test_char_of_a_byte_above_127(oracle: Any, byte: int) -> None:
    printed, binary = oracle.print_both(str(byte), 'int::"char"')
    oid = oracle.oid_of('"char"')
    assert load_binary_of(oid)(binary) == f"\\{byte + 256:03o}"
    # What is no UTF-8 is kept as any such text is.
    bare = bytes([byte + 256]).decode("utf-8", "surrogateescape")
    assert load_text_of(oid)(printed) == (load_binary_of(oid)(binary) if oracle.version >= 150000 else bare)


def test_array_of_box_has_semicolons(oracle: Any) -> None:
    printed, _ = oracle.print_both("{(3,4),(1,2);(1,1),(0,0)}", "box[]")
    assert load_text_of(oracle.oid_of("box[]"))(printed) == ["(3,4),(1,2)", "(1,1),(0,0)"]


def test_types_of_users_are_text(oracle: Any) -> None:
    connection = oracle.connection
    connection.execute("create type public.mood as enum ('sad', 'o''k')")
    connection.execute("create type public.pair as (a int, b text)")
    connection.execute("create domain public.small as int check (value < 10)")
    try:
        for kind, text in (("mood", "o'k"), ("pair", '(1,"a ""b""")'), ("mood[]", "{sad,NULL}"), ("small", "7")):
            printed, _ = oracle.print_both(text, f"public.{kind}")
            value = load_text_of(oracle.oid_of(f"public.{kind}"))(printed)
            assert isinstance(value, str)
            assert oracle.print_text(value, f"public.{kind}") == printed
    finally:
        connection.execute("drop type public.mood, public.pair")
        connection.execute("drop domain public.small")


def test_names_and_numbers_of_types(oracle: Any) -> None:
    rows = oracle.connection.execute(
        "select typname, oid::int, typarray::int from pg_type where typname = any(%s) and typnamespace = 11",
        [list(TYPES)],
    )
    assert {name: (oid, array_oid) for name, oid, array_oid in rows} == TYPES


def test_bytes_that_are_no_utf8(ascii_oracle: Any) -> None:
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    for kind in ("text", "varchar", "name", "json"):
        given = f'"{text}"' if kind == "json" else text
        printed, binary = ascii_oracle.print_both(given, kind)
        oid = ascii_oracle.oid_of(kind)
        value = load_text_of(oid)(printed)
        assert value == load_binary_of(oid)(binary) == text
        assert value.encode("utf-8", "surrogateescape") == b"caf\xe9"
