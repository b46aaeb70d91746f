"""A seeded load whose rows carry their own sequence, so that the destination alone shows what is missing."""

from __future__ import annotations

import random
import threading

import psycopg

KEYS = 200
CLIENTS = 2

SCHEMA = """
CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text);
CREATE TABLE ledger (n bigserial PRIMARY KEY, operation text NOT NULL, id int NOT NULL, version bigint NOT NULL);
"""
UPSERT = """
WITH put AS (
    INSERT INTO items VALUES (%(id)s, 1, %(note)s)
    ON CONFLICT (id) DO UPDATE SET version = items.version + 1, note = excluded.note
    RETURNING id, version, (xmax = 0) AS inserted
)
INSERT INTO ledger (operation, id, version)
SELECT CASE WHEN inserted THEN 'insert' ELSE 'update' END, id, version FROM put
"""
DELETE = """
WITH gone AS (DELETE FROM items WHERE id = %(id)s RETURNING id)
INSERT INTO ledger (operation, id, version) SELECT 'delete', id, -1 FROM gone
"""


class Workload:
    """Clients that write, each in its own thread with keys of its own, until `stop`."""

    def __init__(self, dsn: str, seed: int) -> None:
        self._dsn = dsn
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(seed + n, n)) for n in range(CLIENTS)]
        self.failures: list[Exception] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _client(self, seed: int, number: int) -> None:
        dice = random.Random(seed)
        keys = [key for key in range(KEYS) if key % CLIENTS == number]
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._stopping.is_set():
                    self._transaction(connection, dice, keys)
        except Exception as error:
            self.failures.append(error)

    def _transaction(self, connection: psycopg.Connection, dice: random.Random, keys: list[int]) -> None:
        """One to five statements; a fifth of the transactions is rolled back."""
        with connection.transaction(force_rollback=dice.random() < 0.2):
            for _ in range(dice.randint(1, 5)):
                values = {"id": dice.choice(keys), "note": "x" * dice.randint(0, 200)}
                connection.execute(DELETE if dice.random() < 0.1 else UPSERT, values)
        self._stopping.wait(0.002)
