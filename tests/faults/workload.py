"""
Seeded loads. Rows carry their own sequence, so that the destination alone shows what is missing or old.

Each client is a thread that writes one transaction after the other until `stop`; with `patient` it connects again
when the server goes away. Whatever it does not know about its own commits, `ledger.py` does.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

import psycopg

KEYS = 200
CLIENTS = 2
ACCOUNTS = 50
"""In each of the two tables of the bank."""
BALANCE = 1000
ROLLED_BACK = 0.2
LARGE = 0.02
IN_PARTS = {"logical_decoding_work_mem": "64kB"}
"""With this setting a server sends a large one in parts, while it is in progress."""
TABLES = ("items", "checking", "savings")

SCHEMA = f"""
CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text);
CREATE TABLE checking (id int PRIMARY KEY, version bigint NOT NULL, balance bigint NOT NULL);
CREATE TABLE savings (id int PRIMARY KEY, version bigint NOT NULL, balance bigint NOT NULL);
INSERT INTO checking SELECT n, 0, {BALANCE} FROM generate_series(1, {ACCOUNTS}) n;
INSERT INTO savings SELECT n, 0, {BALANCE} FROM generate_series(1, {ACCOUNTS}) n;
"""
PUT = """
INSERT INTO items VALUES (%(id)s, %(version)s, %(note)s)
ON CONFLICT (id) DO UPDATE SET version = excluded.version, note = excluded.note
"""
DELETE = "DELETE FROM items WHERE id = %(id)s"
MOVE = {
    table: f"UPDATE {table} SET balance = balance + %(amount)s, version = version + 1 WHERE id = %(id)s"
    for table in ("checking", "savings")
}


class Client:
    """One client of a load: its own keys, and a version for each that never goes back."""

    def __init__(self, seed: str, number: int, clients: int) -> None:
        self.dice = random.Random(f"{seed} {number}")
        self.number = number
        self.keys = [key for key in range(KEYS) if key % clients == number]
        self._versions: Counter[int] = Counter()

    def row(self, key: int) -> dict[str, object]:
        """Return the next version of a row."""
        self._versions[key] += 1
        return {"id": key, "version": self._versions[key], "note": "x" * self.dice.randint(0, 200)}


Transact = Callable[[psycopg.Connection, Client], None]


def upserts(connection: psycopg.Connection, client: Client) -> None:
    """W1: one to five statements on keys of its own, a tenth of them deletes; some transactions are rolled back."""
    dice = client.dice
    with connection.transaction(force_rollback=dice.random() < ROLLED_BACK):
        for _ in range(dice.randint(1, 5)):
            row = client.row(dice.choice(client.keys))
            connection.execute(DELETE if dice.random() < 0.1 else PUT, row)


def mixed(connection: psycopg.Connection, client: Client) -> None:
    """W4: as W1, with a large transaction now and then, of which a savepoint undoes a part."""
    dice = client.dice
    if dice.random() >= LARGE:
        upserts(connection, client)
        return
    with connection.transaction(force_rollback=dice.random() < ROLLED_BACK):
        for keep in (True, False, True):
            with connection.transaction(force_rollback=not keep):
                for _ in range(80):
                    row = client.row(dice.choice(client.keys))
                    # Just below the size at which PostgreSQL would compress it.
                    connection.execute(DELETE if dice.random() < 0.1 else PUT, row | {"note": "x" * 1900})


def transfers(connection: psycopg.Connection, client: Client) -> None:
    """W5: money moves between rows of two tables; the sum is the same at every commit. Some inside savepoints."""
    dice = client.dice
    # In one order for all clients: no deadlocks.
    places = sorted({(dice.choice(TABLES[1:]), dice.randint(1, ACCOUNTS)) for _ in range(dice.randint(2, 4))})
    amounts = [dice.randint(-100, 100) for _ in places[1:]]
    with connection.transaction(force_rollback=dice.random() < ROLLED_BACK):
        if dice.random() < 0.2:
            with connection.transaction(force_rollback=True):
                connection.execute(MOVE[places[0][0]], {"id": places[0][1], "amount": 1})
        for (table, key), amount in zip(places, [-sum(amounts), *amounts], strict=True):
            connection.execute(MOVE[table], {"id": key, "amount": amount})


def hot_key(connection: psycopg.Connection, client: Client) -> None:
    """W6: the same row again and again."""
    connection.execute(PUT, client.row(client.number))


def delete_and_insert(connection: psycopg.Connection, client: Client) -> None:
    """W8: a row goes and comes again under the same key, in one transaction or in two."""
    row = client.row(client.dice.choice(client.keys[:10]))
    if client.dice.random() < 0.5:
        with connection.transaction():
            connection.execute(DELETE, row)
            connection.execute(PUT, row)
    else:
        connection.execute(DELETE, row)
        connection.execute(PUT, row)


def large_rows(connection: psycopg.Connection, client: Client) -> None:
    """W9: rows of up to a megabyte."""
    row = client.row(client.dice.choice(client.keys[:20]))
    connection.execute(PUT, row | {"note": client.dice.randbytes(client.dice.randint(1000, 500_000)).hex()})


class Workload:
    """Clients that write, each in its own thread, until `stop`."""

    def __init__(
        self,
        dsn: str,
        seed: object,
        transact: Transact = upserts,
        *,
        clients: int = CLIENTS,
        pause_seconds: float = 0.002,
        patient: bool = False,
    ) -> None:
        self._dsn = dsn
        self._transact = transact
        self._pause_seconds = pause_seconds
        self._patient = patient
        self._stopping = threading.Event()
        self._clients = [Client(str(seed), number, clients) for number in range(clients)]
        self._threads = [threading.Thread(target=self._run, args=(client,), daemon=True) for client in self._clients]
        self.failures: list[Exception] = []
        self.transactions = 0

    def start(self) -> Workload:
        """Begin to write."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """End the load; raises what ended a client."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: Client) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    while not self._stopping.is_set():
                        self._transact(connection, client)
                        self.transactions += 1
                        self._stopping.wait(self._pause_seconds)
            except psycopg.OperationalError as error:
                if not self._patient:
                    self.failures.append(error)
                    return
                self._stopping.wait(0.1)
            except Exception as error:
                self.failures.append(error)
                return
