"""Every way in which a publication may have left out rows, and every change of it that left out none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend_watcher.capture.drift import Coverage, gaps
from backend_watcher.postgres.surroundings import EVERY_TABLE, PublicationSeen, TableSeen

PUBLICATION = PublicationSeen(7, "100", 10, True, None, ("insert", "update", "delete", "truncate"))
ORDERS = TableSeen(1, "public", "orders", (71,))
PRODUCTS = TableSeen(2, "public", "products", (72,))
BEFORE = Coverage.of(PUBLICATION, [ORDERS, PRODUCTS], ["public.orders", "public.products"])


def altered(**values: object) -> PublicationSeen:
    return replace(PUBLICATION, touched="101", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("publication", "tables"),
    [
        (PUBLICATION, [ORDERS, PRODUCTS]),
        (PUBLICATION, [PRODUCTS]),
        (PUBLICATION, [ORDERS, PRODUCTS, TableSeen(3, "public", "more", (73,))]),
        (PUBLICATION, [ORDERS, replace(PRODUCTS, entries=(72, 80))]),
        (altered(owner=11), [ORDERS, PRODUCTS]),
        (altered(generated="stored"), [ORDERS, PRODUCTS]),
        # What is done to a table itself is told of by schema.py, and stops nothing.
        (PUBLICATION, [ORDERS, replace(PRODUCTS, oid=9, entries=(90,))]),
        (PUBLICATION, [ORDERS, replace(PRODUCTS, oid=9, entries=())]),
        (PUBLICATION, [ORDERS, replace(PRODUCTS, name="goods")]),
        (PUBLICATION, [ORDERS, replace(PRODUCTS, schema="old")]),
    ],
    ids=[
        "nothing",
        "a table dropped",
        "a table added",
        "covered twice",
        "another owner",
        "generated columns",
        "made again and published",
        "made again",
        "renamed",
        "moved",
    ],
)
def test_what_leaves_out_no_row(publication: PublicationSeen, tables: list[TableSeen]) -> None:
    assert gaps(BEFORE, publication, tables) == []


@pytest.mark.parametrize(
    ("publication", "tables", "words"),
    [
        (None, [ORDERS, PRODUCTS], "it was dropped"),
        (replace(PUBLICATION, oid=8), [ORDERS, PRODUCTS], "dropped and made again"),
        (altered(operations=("insert", "truncate")), [ORDERS, PRODUCTS], "publishes no update, delete any more"),
        (altered(via_root=False), [ORDERS, PRODUCTS], "publish_via_partition_root was changed"),
        (altered(), [ORDERS, PRODUCTS], "altered and altered back"),
        (PUBLICATION, [ORDERS, replace(PRODUCTS, entries=())], "table public.products was taken out"),
        (PUBLICATION, [ORDERS, replace(PRODUCTS, entries=(90,))], "taken out and put back"),
    ],
)
def test_what_may_have_left_out_rows(publication: PublicationSeen | None, tables: list[TableSeen], words: str) -> None:
    lines = gaps(BEFORE, publication, tables)
    assert len(lines) == 1
    assert words in lines[0]


def test_operations_that_were_added_before_one_was_taken_away() -> None:
    before = replace(BEFORE, publication=replace(PUBLICATION, operations=("insert",)))
    assert gaps(before, altered(operations=("insert", "delete")), [ORDERS, PRODUCTS]) == []


def test_what_is_published_as_a_whole_covers_a_table_that_is_made_again() -> None:
    every = [replace(table, entries=(EVERY_TABLE,)) for table in (ORDERS, PRODUCTS)]
    before = Coverage.of(PUBLICATION, every, ["public.orders", "public.products"])
    assert gaps(before, PUBLICATION, [every[0], replace(every[1], oid=9)]) == []


def test_a_note_is_read_as_it_was_written() -> None:
    assert Coverage.from_note(BEFORE.to_note()) == BEFORE
    assert BEFORE.oids == [1, 2]
    for note in (None, "", "{}", "[]", '{"publication": {"x": 1}, "tables": {}}'):
        assert Coverage.from_note(note) is None


NAMES = ["public.orders", "public.products"]


def test_it_follows_what_was_explained() -> None:
    grown = replace(PRODUCTS, entries=(72, 80))
    now = BEFORE.followed(altered(owner=11), [grown], NAMES)
    assert (now.publication.owner, now.tables["public.products"]) == (11, grown)
    # Dropped some time ago, and not forgotten.
    assert now.tables["public.orders"] == ORDERS
    assert now.unpublished() == []


def test_a_table_that_is_made_again_is_unpublished_until_it_is_published() -> None:
    again = replace(ORDERS, oid=9, entries=())
    now = BEFORE.followed(PUBLICATION, [again, PRODUCTS], NAMES)
    assert now.unpublished() == ["public.orders"]
    there = replace(again, entries=(90,))
    assert gaps(now, PUBLICATION, [there, PRODUCTS]) == []
    now = now.followed(PUBLICATION, [there, PRODUCTS], NAMES)
    assert now.unpublished() == []
    # From then on it is as every other.
    assert len(gaps(now, PUBLICATION, [again, PRODUCTS])) == 1


def test_a_table_that_nobody_watches_any_more_is_not_missed() -> None:
    before = BEFORE.only(["public.orders", "public.new"])
    assert list(before.tables) == ["public.orders"]
    assert gaps(before, PUBLICATION, [ORDERS, replace(PRODUCTS, entries=())]) == []
