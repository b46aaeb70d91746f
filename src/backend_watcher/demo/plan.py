"""
The orders of a run, and when each is sent: the same seed gives the same requests, so both phases do the same work.

A delivery of goods is planned wherever a product would run out, so that stock keeps falling under five again and
again: about one order in twelve makes it cross that line, and a seller has to be told. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backend_watcher.demo import seed

ORDERS = "/orders"
RESTOCKS = "/restocks"

LINES_MAX = 3
QUANTITY_MAX = 2
RESTOCK_AT = 2
RESTOCK_QUANTITY = 36

# The n-th most popular product is wanted 1 / (n + FLATNESS) as often: some are hot, none is everything.
FLATNESS = 30


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, and when it is sent, in seconds after the start."""

    at_seconds: float
    path: str
    body: dict[str, Any]


def make_plan(number: int, rate: float, seconds: float) -> Iterator[Request]:
    """Yield the requests of `seconds` of a shop that takes `rate` orders a second, in the order they are sent."""
    draw = random.Random(number)
    stock = seed.opening_stock()
    products = list(stock)
    draw.shuffle(products)
    weights = [1 / (rank + FLATNESS) for rank in range(len(products))]
    for order in range(round(rate * seconds)):
        at = order / rate
        wanted = set(draw.choices(products, weights, k=draw.randint(1, LINES_MAX)))
        lines = [(product, draw.randint(1, QUANTITY_MAX)) for product in sorted(wanted)]
        yield Request(at, ORDERS, {"wallet_id": draw.randint(1, seed.WALLETS), "lines": lines})
        for product, quantity in lines:
            stock[product] -= quantity
            if stock[product] <= RESTOCK_AT:
                stock[product] += RESTOCK_QUANTITY
                yield Request(at, RESTOCKS, {"product_id": product, "quantity": RESTOCK_QUANTITY})
