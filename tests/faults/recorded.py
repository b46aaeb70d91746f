"""
Histories from a real server, recorded once, and a model of the server that sends them again from any position.

PostgreSQL sends a transaction when its commit record begins at or after the position asked for (snapbuild.c,
`SnapBuildXactNeedsSkip`), whole and in commit order: that is all the model knows.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import psycopg

from backend_watcher.events.position import parse_lsn
from backend_watcher.postgres.replication import ReplicationStream

XLOG_HEADER = 25
"""Bytes before the message in an XLogData: type, start, end, clock. Compiled, the decoder's own number is no name."""

RECORD_SECONDS_MAX = 30.0
LAST = 1_000_000
"""The key of the row that ends a recording."""


@dataclass(frozen=True)
class Sent:
    """One transaction as the server sent it."""

    commit_lsn: int
    messages: tuple[bytes, ...]


class Replayed:
    """Sends a recording again, as the server would after START_REPLICATION."""

    def __init__(self, messages: list[bytes]) -> None:
        self.transactions: list[Sent] = []
        open_at = 0
        for number, message in enumerate(messages):
            kind = message[XLOG_HEADER : XLOG_HEADER + 1]
            if kind == b"B":
                open_at = number
            elif kind == b"C":
                begin = messages[open_at]
                lsn = int.from_bytes(begin[XLOG_HEADER + 1 : XLOG_HEADER + 9], "big")
                self.transactions.append(Sent(lsn, tuple(messages[open_at : number + 1])))

    def since(self, start_lsn: int) -> list[bytes]:
        """Return what is sent after a start at `start_lsn`; Relations come again, as in every session."""
        relations: dict[bytes, bytes] = {}
        messages: list[bytes] = []
        told: set[bytes] = set()
        for sent in self.transactions:
            for message in sent.messages:
                kind, oid = message[XLOG_HEADER : XLOG_HEADER + 1], message[XLOG_HEADER + 1 : XLOG_HEADER + 5]
                if kind == b"R":
                    relations[oid] = message
                    told.discard(oid)
                if sent.commit_lsn < start_lsn:
                    continue
                if kind in b"IUD" and oid not in told:
                    messages.append(relations[oid])
                if kind == b"R" or kind in b"IUD":
                    told.add(oid)
                messages.append(message)
        return messages


def write_history(dsn: str, dice: random.Random, transactions: int) -> None:
    """Interleave clients: several rows a statement, COPY, savepoints rolled back, deletes, long and short ones."""
    clients = [psycopg.connect(dsn) for _ in range(4)]
    fresh = iter(range(1, LAST))
    try:
        for _ in range(transactions):
            client = dice.choice(clients)
            for _ in range(dice.randint(1, 3)):
                _statement(client, dice, fresh)
            if dice.random() < 0.7:
                client.rollback() if dice.random() < 0.2 else client.commit()
        for client in clients:
            client.commit()
        clients[0].execute("INSERT INTO items VALUES (%s, 0, 'the end')", [LAST])
        clients[0].commit()
    finally:
        for client in clients:
            client.close()


def _statement(client: psycopg.Connection, dice: random.Random, fresh) -> None:
    what = dice.random()
    if what < 0.3:
        client.execute(
            "INSERT INTO items SELECT n, 1, 'many' FROM unnest(%s::int[]) n", [[next(fresh) for _ in range(3)]]
        )
    elif what < 0.45:
        with client.cursor() as cursor, cursor.copy("COPY items FROM STDIN") as copy:
            for _ in range(dice.randint(1, 4)):
                copy.write_row((next(fresh), 1, "copied"))
    elif what < 0.6:
        client.execute("SAVEPOINT s")
        client.execute("INSERT INTO items VALUES (%s, 1, 'undone')", [next(fresh)])
        client.execute("ROLLBACK TO s")
    elif what < 0.8:
        key = next(fresh)
        client.execute("INSERT INTO items VALUES (%s, 1, 'short')", [key])
        client.execute("UPDATE items SET version = 2 WHERE id = %s", [key])
        client.execute("DELETE FROM items WHERE id = %s", [key])
    else:
        client.execute("INSERT INTO items VALUES (%s, 1, 'one')", [next(fresh)])


async def record(dsn: str, slot: str, publication: str) -> list[bytes]:
    """Return every message of the slot up to the row LAST's commit; nothing is confirmed."""
    stream = ReplicationStream(dsn)
    await stream.open()
    messages: list[bytes] = []
    try:
        await stream.start(slot, parse_lsn("0/0"), publication)
        last = False
        async with asyncio.timeout(RECORD_SECONDS_MAX):
            while True:
                await stream.wait()
                received = stream.receive(1 << 20)
                at = 0
                for size in received.sizes:
                    message = bytes(received.data[at : at + size])
                    at += size
                    messages.append(message)
                    last = last or (b"the end" in message and message[XLOG_HEADER : XLOG_HEADER + 1] == b"I")
                    if last and message[XLOG_HEADER : XLOG_HEADER + 1] == b"C":
                        return messages
    finally:
        await stream.close()
