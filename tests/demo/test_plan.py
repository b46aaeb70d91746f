"""The planned load: the same for the same number, spread evenly, with enough crossings to see."""

from __future__ import annotations

from collections import Counter

from backend_watcher.demo import seed
from backend_watcher.demo.plan import ORDERS, RESTOCKS, make_plan
from backend_watcher.demo.proof import LOW_STOCK


def test_the_same_number_gives_the_same_requests() -> None:
    first = list(make_plan(1, 60, 10))
    assert first == list(make_plan(1, 60, 10))
    assert first != list(make_plan(2, 60, 10))


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short = list(make_plan(1, 60, 3))
    assert list(make_plan(1, 60, 10))[: len(short)] == short


def test_sends_at_the_rate() -> None:
    orders = [request for request in make_plan(1, 50, 4) if request.path == ORDERS]
    assert len(orders) == 200
    assert [request.at_seconds for request in orders] == [number / 50 for number in range(200)]


def test_crosses_the_line_often_and_never_runs_out() -> None:
    stock = seed.opening_stock()
    found: Counter[str] = Counter()
    for request in make_plan(1, 60, 10):
        if request.path == RESTOCKS:
            stock[request.body["product_id"]] += request.body["quantity"]
            found["restocks"] += 1
            continue
        found["orders"] += 1
        for product, quantity in request.body["lines"]:
            before, stock[product] = stock[product], stock[product] - quantity
            found["crossings"] += stock[product] < LOW_STOCK <= before
    assert min(stock.values()) > -2
    assert found["restocks"] > 0
    # Far more than one in a hundred: the 99th percentile of the inline phase is the price of a call.
    assert 0.05 * found["orders"] < found["crossings"] < 0.2 * found["orders"]


def test_an_order_names_a_product_once() -> None:
    for request in make_plan(3, 60, 5):
        if request.path == ORDERS:
            products = [product for product, _ in request.body["lines"]]
            assert products == sorted(set(products))
