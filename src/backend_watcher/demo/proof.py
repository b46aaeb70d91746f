"""
The proof: the cache, the notifications and the figures are what the tables say, and nothing else.

It asks PostgreSQL, Valkey and the sellers' service, and trusts neither Backend 1 nor the watcher. *Lost* is what
should be somewhere and is not; *wrong* is what should not be there, or is there with another value.

The crossings are recomputed from the ledger `stock_moves`: the moves of a product are numbered under its row lock, so
adding them up in that order gives its stock before and after each. The ledger itself is checked against the stock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from psycopg.rows import dict_row

from backend_watcher.demo.seed import WALLET_RUPIAH

if TYPE_CHECKING:
    from psycopg import Connection

LOW_STOCK = 5
SHOWN_MAX = 5

CACHES = (("product", "products"), ("order", "orders"), ("wallet", "wallets"))

# Every change the watcher was told of: rows that were inserted, and updates (of which products and wallets have one
# for each step of their version).
CHANGES = """
SELECT (SELECT count(*) + sum(version) FROM products) + (SELECT count(*) + sum(version) FROM wallets)
     + (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_lines)
"""

CROSSINGS = """
SELECT product_id, version, after FROM (
    SELECT product_id, version, quantity, sum(quantity) OVER (PARTITION BY product_id ORDER BY version) AS after
    FROM stock_moves
) AS ledger
WHERE after < %(low)s AND after - quantity >= %(low)s AND version > 0
"""

REVENUE = """
SELECT s.id, coalesce(sum(l.amount), 0), r.revenue
FROM sellers s LEFT JOIN order_lines l ON l.seller_id = s.id LEFT JOIN seller_revenue r ON r.seller_id = s.id
GROUP BY s.id, r.revenue
"""

LEDGER_FAULTS = """
SELECT p.id FROM products p
LEFT JOIN (SELECT product_id, sum(quantity) AS stock, max(version) AS version FROM stock_moves GROUP BY product_id) m
    ON m.product_id = p.id
WHERE (p.stock, p.version) IS DISTINCT FROM (m.stock, m.version)
"""

WALLET_FAULTS = """
SELECT w.id FROM wallets w LEFT JOIN orders o ON o.wallet_id = w.id
GROUP BY w.id, w.balance HAVING w.balance <> %s - coalesce(sum(o.total), 0)
"""

TOTAL_FAULTS = """
SELECT o.id FROM orders o LEFT JOIN order_lines l ON l.order_id = o.id
GROUP BY o.id, o.total HAVING o.total IS DISTINCT FROM sum(l.amount)
"""


@dataclass(slots=True)
class Proof:
    """What was found. `changes` and `crossings` count what the tables say there was."""

    changes: int = 0
    crossings: int = 0
    notified: int = 0
    duplicates: int = 0
    cached: int = 0
    revenue_rupiah: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing wrong."""
        return not self.lost and not self.wrong

    def complaints(self) -> list[str]:
        """Return the first few of what was found."""
        found = [f"lost: {what}" for what in self.lost] + [f"wrong: {what}" for what in self.wrong]
        more = [f"and {len(found) - SHOWN_MAX} more"] if len(found) > SHOWN_MAX else []
        return found[:SHOWN_MAX] + more


def prove(dsn: str, cache_url: str, received: Mapping[str, Any]) -> Proof:
    """Compare everything, at rest. `received` is what the sellers' service says it got."""
    proof = Proof()
    with psycopg.connect(dsn) as connection, redis.Redis.from_url(cache_url) as cache:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        proof.changes = int(connection.execute(CHANGES).fetchall()[0][0])
        _check_shop(connection, proof)
        for name, table in CACHES:
            with connection.cursor(row_factory=dict_row) as cursor:
                rows = cursor.execute(f"SELECT * FROM {table}").fetchall()
            _check_cache(name, rows, _entries(cache, name), proof)
        crossings = {(row[0], row[1]): int(row[2]) for row in connection.execute(CROSSINGS, {"low": LOW_STOCK})}
        _check_notifications(crossings, received, proof)
        _check_revenue(connection.execute(REVENUE).fetchall(), proof)
    return proof


def _check_shop(connection: Connection[Any], proof: Proof) -> None:
    """Compare the shop with itself: a proof against tables that contradict each other would prove nothing."""
    faults = (
        ("product {}: its stock is not the sum of its moves", LEDGER_FAULTS, ()),
        ("wallet {}: its balance is not what its orders left", WALLET_FAULTS, (WALLET_RUPIAH,)),
        ("order {}: its total is not the sum of its lines", TOTAL_FAULTS, ()),
    )
    for words, query, values in faults:
        proof.wrong += [words.format(row[0]) for row in connection.execute(query, values)]


def _entries(cache: redis.Redis, name: str) -> dict[str, bytes]:
    keys = [key.decode() for key in cache.scan_iter(match=f"{name}:*", count=1000)]
    values = cache.mget(keys) if keys else []
    return {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)}


def _check_cache(name: str, rows: Sequence[Mapping[str, Any]], entries: dict[str, bytes], proof: Proof) -> None:
    """Each row has its entry, equal in every column, and there is no entry without a row."""
    for row in rows:
        key = f"{name}:{row['id']}"
        value = entries.pop(key, None)
        if value is None:
            proof.lost.append(f"{key} is not in the cache")
            continue
        proof.cached += 1
        differing = differences(row, value)
        if differing:
            proof.wrong.append(f"{key} differs in the cache: {', '.join(differing)}")
    proof.wrong += [f"{key} is in the cache, and there is no such row" for key in entries]


def differences(row: Mapping[str, Any], value: bytes) -> list[str]:
    """Return the columns in which a cached entry is not its row."""
    try:
        entry = json.loads(value)
    except ValueError:
        return ["it is not JSON"]
    if not isinstance(entry, dict):
        return ["it is not a row"]
    found = [column for column, wanted in row.items() if column not in entry or not _equal(wanted, entry[column])]
    return found + sorted(entry.keys() - row.keys())


def _equal(wanted: Any, cached: Any) -> bool:
    if isinstance(wanted, datetime):
        try:
            return datetime.fromisoformat(cached) == wanted
        except (TypeError, ValueError):
            return False
    return type(cached) is type(wanted) and cached == wanted


def _check_notifications(crossings: Mapping[tuple[int, int], int], received: Mapping[str, Any], proof: Proof) -> None:
    """Each crossing was told, once for each event_id, with the stock it was; and nothing else was."""
    told: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for notification in received["notifications"]:
        told.setdefault((notification["product_id"], notification["version"]), []).append(notification)
    proof.crossings, proof.duplicates = len(crossings), int(received["duplicates"])
    proof.notified = sum(map(len, told.values()))
    for (product, version), stock in crossings.items():
        found = told.pop((product, version), [])
        what = f"product {product}, version {version}"
        if not found:
            proof.lost.append(f"{what} fell to {stock}, and its seller was not told")
        elif len(found) > 1:
            proof.wrong.append(f"{what}: its seller was told {len(found)} times with different event ids")
        elif found[0]["stock"] != stock:
            proof.wrong.append(f"{what} fell to {stock}, and its seller was told {found[0]['stock']}")
    proof.wrong += [
        f"product {product}, version {version} crossed no line, and its seller was told" for product, version in told
    ]


def _check_revenue(rows: Iterable[Sequence[Any]], proof: Proof) -> None:
    for seller, wanted, kept in rows:
        proof.revenue_rupiah += int(wanted)
        if kept is None or kept < wanted:
            proof.lost.append(f"seller {seller}: revenue is {rupiah(kept or 0)}, the order lines say {rupiah(wanted)}")
        elif kept > wanted:
            proof.wrong.append(f"seller {seller}: revenue is {rupiah(kept)}, the order lines say {rupiah(wanted)}")


def rupiah(amount: float) -> str:
    """Write an amount as it is written in Indonesia: Rp 1.250.000."""
    return f"Rp {int(amount):,}".replace(",", ".")
