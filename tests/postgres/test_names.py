"""Names as people write them, and as the server reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.errors import ConfigError
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import (
    check_publication_name,
    check_slot_name,
    for_statement,
    format_name,
    parse_name,
    quote,
)

HOSTILE = [
    'a"b',
    '"',
    "a.b",
    '"; DROP TABLE x;--',
    "%s %(x)s {} {0}",
    "🐘 ελέφαντας",
    "x" * 63,
    "é" * 31,
    "line\nbreak",
    "back\\slash\ttab",
    "\x1b[31mred",
    "right\u202eleft",
    "Select",
    "user",
    " ",
    "''",
    "$1",
]


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("products", ("public", "products")),
        ("shop.products", ("shop", "products")),
        ("Shop.Products", ("Shop", "Products")),
        ('"Weird.Name"', ("public", "Weird.Name")),
        ('shop."Weird.Name"', ("shop", "Weird.Name")),
        ('"a.b"."c""d"', ("a.b", 'c"d')),
        ('it"em', ("public", 'it"em')),
        ("two words", ("public", "two words")),
    ],
)
def test_a_name_is_read_as_it_is_written(text: str, pair: tuple[str, str]) -> None:
    assert parse_name(text) == pair


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", '""', '"a', '"a"b', 'a."b', "a\0b", 'a."b"c'])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a table name"):
        parse_name(text)


@given(st.text(st.characters(exclude_characters="\0"), min_size=1), st.text(min_size=1).filter(lambda t: "\0" not in t))
def test_a_written_name_is_read_back(schema: str, name: str) -> None:
    assert parse_name(format_name(schema, name)) == (schema, name)


async def test_a_quoted_name_is_one_line_and_the_same_to_the_server(conn: Connection) -> None:
    for name in HOSTILE:
        written = quote(name)
        assert written.isprintable()
        cursor = await conn.execute(f"SELECT 1 AS {written}".encode())
        assert cursor.description is not None
        assert cursor.description[0].name == name


def test_the_servers_own_spelling_is_kept_where_it_is_one_line() -> None:
    assert for_statement("public", "t", "public.t") == "public.t"
    assert for_statement("public", "a\nb", 'public."a\nb"') == '"public".U&"a\\+00000Ab"'


@pytest.mark.parametrize("name", ["", "A", "a-b", "a b", 'a"', "é", "a" * 64, "a\n", "a;b"])
def test_a_slot_name_that_a_command_could_misread_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a slot name"):
        check_slot_name(name)


def test_a_plain_slot_name_is_accepted() -> None:
    check_slot_name("watcher_2")
    check_slot_name("a" * 63)


@pytest.mark.parametrize("name", ["", "a\0", "é" * 32])
def test_a_publication_name_that_would_be_cut_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a publication name"):
        check_publication_name(name)
