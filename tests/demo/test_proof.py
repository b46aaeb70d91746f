"""The proof finds everything that can be wrong, and nothing where nothing is. On real servers."""

from __future__ import annotations

import json

import pytest

from backend_watcher.demo.proof import Proof, differences, rupiah

from .conftest import Shop


def only(found: list[str]) -> str:
    assert len(found) == 1
    return found[0]


def test_finds_nothing_where_nothing_is(shop: Shop) -> None:
    proof = shop.prove()
    assert proof.clean, proof.complaints()
    assert (proof.crossings, proof.notified) == (2, 2)
    # 120 products and 400 wallets that were there; 2 orders of 2 lines each, which pay, and a restock.
    assert proof.changes == 120 + 400 + 2 * (1 + 2 + 2 + 1) + 1
    assert proof.cached == 120 + 400 + 2
    assert proof.revenue_rupiah > 0


def test_finds_a_wrong_value_in_the_cache(shop: Shop) -> None:
    with shop.cache() as cache:
        row = json.loads(cache.get("product:2") or b"")
        cache.set("product:2", json.dumps(row | {"stock": row["stock"] + 1}))
    proof = shop.prove()
    assert not proof.lost
    assert only(proof.wrong) == "product:2 differs in the cache: stock"


def test_finds_an_entry_that_is_missing(shop: Shop) -> None:
    with shop.cache() as cache:
        cache.delete("wallet:7")
    proof = shop.prove()
    assert only(proof.lost) == "wallet:7 is not in the cache"
    assert not proof.wrong


def test_finds_an_entry_without_a_row(shop: Shop) -> None:
    with shop.cache() as cache:
        cache.set("order:999", "{}")
    assert only(shop.prove().wrong) == "order:999 is in the cache, and there is no such row"


def test_finds_a_missing_notification(shop: Shop) -> None:
    shop.received["notifications"].pop()
    proof = shop.prove()
    assert "its seller was not told" in only(proof.lost)
    assert not proof.wrong


def test_finds_a_notification_of_nothing(shop: Shop) -> None:
    shop.received["notifications"].append({"event_id": "x", "product_id": 3, "version": 1, "stock": 3})
    assert only(shop.prove().wrong) == "product 3, version 1 crossed no line, and its seller was told"


def test_finds_a_seller_who_was_told_twice(shop: Shop) -> None:
    again = dict(shop.received["notifications"][0], event_id="another")
    shop.received["notifications"].append(again)
    assert "told 2 times" in only(shop.prove().wrong)


def test_finds_a_notification_with_the_wrong_stock(shop: Shop) -> None:
    shop.received["notifications"][0]["stock"] -= 1
    assert "its seller was told" in only(shop.prove().wrong)


def test_takes_an_event_that_came_again_for_what_it_is(shop: Shop) -> None:
    shop.received["duplicates"] = 3
    proof = shop.prove()
    assert proof.clean
    assert proof.duplicates == 3


def test_finds_revenue_that_was_counted_twice(shop: Shop) -> None:
    shop.execute("UPDATE seller_revenue SET revenue = revenue * 2 WHERE seller_id = 2")
    proof = shop.prove()
    assert not proof.lost
    assert only(proof.wrong).startswith("seller 2: revenue is Rp ")


def test_finds_revenue_that_is_missing(shop: Shop) -> None:
    shop.execute("UPDATE seller_revenue SET revenue = revenue - 1 WHERE seller_id = 2")
    proof = shop.prove()
    assert only(proof.lost).startswith("seller 2: revenue is Rp ")
    assert not proof.wrong


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE products SET stock = stock - 1 WHERE id = 9", "product 9: its stock"),
        ("UPDATE wallets SET balance = balance - 1 WHERE id = 9", "wallet 9: its balance"),
        ("UPDATE orders SET total = total + 1 WHERE id = 1", "order 1: its total"),
    ],
)
def test_finds_a_shop_that_contradicts_itself(shop: Shop, statement: str, complaint: str) -> None:
    shop.execute(statement)
    assert any(what.startswith(complaint) for what in shop.prove().wrong)


def test_compares_types_and_columns() -> None:
    assert differences({"id": 1, "name": "Gula Aren"}, b'{"id": 1, "name": "Gula Aren"}') == []
    assert differences({"id": 1}, b'{"id": "1"}') == ["id"]
    assert differences({"id": 1}, b'{"id": true}') == ["id"]
    assert differences({"id": 1}, b"{}") == ["id"]
    assert differences({"id": 1}, b'{"id": 1, "stock": 2}') == ["stock"]
    assert differences({"id": 1}, b"[1]") == ["it is not a row"]
    assert differences({"id": 1}, b"?") == ["it is not JSON"]


def test_shows_the_first_complaints_only() -> None:
    proof = Proof(lost=["a", "b", "c", "d"], wrong=["e", "f", "g"])
    assert proof.complaints() == ["lost: a", "lost: b", "lost: c", "lost: d", "wrong: e", "and 2 more"]


def test_writes_rupiah_as_in_indonesia() -> None:
    assert rupiah(1_250_000) == "Rp 1.250.000"
