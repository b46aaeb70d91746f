"""Which transactions come next: the rule against a model of a server, over thousands of random schedules."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.capture.visible import NOTHING, Batch, Snapshot, Written, end_lsn, placed
from backend_watcher.errors import OutOfOrder, ProtocolError

SCHEDULES = 4000
EPOCH = 1 << 32


@dataclass
class Running:
    """A transaction in the model: what it wrote, the locks it holds, and whom it could know of."""

    xid: int
    rows: list[tuple[int, str]] = field(default_factory=list)
    knows: set[int] = field(default_factory=set)


class Server:
    """Hands out ids and numbers as PostgreSQL does: at the first write, and before the commit."""

    def __init__(self, dice: random.Random, first_xid: int) -> None:
        self.dice = dice
        self.next_xid = first_xid
        self.number = 0
        self.wal = 1000
        self.running: list[Running] = []
        self.locks: dict[str, int] = {}
        self.committed: list[Running] = []
        self.finished: set[int] = set()

    def step(self) -> None:
        """Begin, write, commit or roll back."""
        deed = self.dice.random()
        if deed < 0.25 or not self.running:
            self.running.append(Running(self.next_xid))
            self.next_xid += 1
        elif deed < 0.7:
            self._write(self.dice.choice(self.running))
        else:
            self._end(self.dice.choice(self.running), commit=deed < 0.93)

    def _write(self, one: Running) -> None:
        key = self.dice.choice("abcde")
        if self.locks.setdefault(key, one.xid) != one.xid:
            return  # it would wait for the row
        self.number += 1
        self.wal += self.dice.randint(0, 3)
        one.rows.append((self.number, key))
        # READ COMMITTED: this statement could see everything that is committed now.
        one.knows |= {other.xid for other in self.committed if other.rows}

    def _end(self, one: Running, *, commit: bool) -> None:
        self.running.remove(one)
        self.finished.add(one.xid)
        self.locks = {key: xid for key, xid in self.locks.items() if xid != one.xid}
        if commit:
            self.wal += self.dice.randint(0, 3)
            self.committed.append(one)

    def snapshot(self) -> Snapshot:
        running = sorted(one.xid for one in self.running)
        xmax = max(self.finished, default=self.next_xid - 1) + 1
        running = [xid for xid in running if xid < xmax]
        return Snapshot(running[0] if running else xmax, xmax, tuple(running))


class Reader:
    """Claims batches, which stay on the server, and reads them; may be killed at any time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.claims: list[Batch] = []
        self.end = 0

    def claim(self) -> None:
        before = self.claims[-1].snapshot if self.claims else NOTHING
        snapshot = self.server.snapshot()
        if any(one.rows and not before.sees(one.xid) for one in self.server.committed):
            if self.claims:
                self.end = end_lsn(self.claims[-1], len(self.read(self.claims[-1])))
            start = max(self.server.wal, self.end)
            self.claims.append(Batch(len(self.claims) + 1, before, snapshot, start))

    def read(self, batch: Batch) -> list[tuple[int, Written]]:
        """What the query gives: what is committed now, of this batch, by the last number."""
        found = [
            Written(one.xid, one.rows[-1][0], len(one.rows), 1, 0)
            for one in self.server.committed
            if one.rows and batch.holds(one.xid)
        ]
        return list(placed(batch, sorted(found, key=lambda one: one.last_number)))


def live(seed: int, first_xid: int) -> tuple[Server, Reader, list[tuple[int, int]]]:
    """One schedule; returns what the journal holds: positions and transactions, in the order they came."""
    dice = random.Random(seed)
    server = Server(dice, first_xid)
    reader = Reader(server)
    journal: list[tuple[int, int]] = []
    read = 0
    for _ in range(dice.randint(5, 120)):
        server.step()
        if dice.random() < 0.25:
            reader.claim()
        if dice.random() < 0.3 and read < len(reader.claims):
            found = [(lsn, one.xid) for lsn, one in reader.read(reader.claims[read])]
            if dice.random() < 0.3:
                # Killed in the middle, some of it durable; read again, it has to be the same.
                stored = found[: dice.randint(0, len(found))]
                journal += stored
                for _ in range(dice.randint(0, 20)):
                    server.step()
                again = [(lsn, one.xid) for lsn, one in reader.read(reader.claims[read])]
                assert again == found
                found = again[len(stored) :]
            journal += found
            read += 1
    for one in list(server.running):
        server._end(one, commit=dice.random() < 0.5)
    reader.claim()
    for batch in reader.claims[read:]:
        journal += [(lsn, one.xid) for lsn, one in reader.read(batch)]
    return server, reader, journal


@settings(max_examples=SCHEDULES, deadline=None)
@given(st.integers(0, 2**63), st.sampled_from([3, 1000, EPOCH - 20, 5 * EPOCH - 7]))
def test_every_transaction_comes_once_after_all_it_could_know_of(seed: int, first_xid: int) -> None:
    server, _, journal = live(seed, first_xid)
    came = [xid for _, xid in journal]
    written = {one.xid: one for one in server.committed if one.rows}
    assert sorted(came) == sorted(written), "skipped, or twice"
    positions = [lsn for lsn, _ in journal]
    assert positions == sorted(set(positions)), "positions go on, and none is given twice"
    place = {xid: number for number, xid in enumerate(came)}
    for xid, one in written.items():
        for known in one.knows & written.keys():
            assert known == xid or place[known] < place[xid], "before one it could know of"
    for key in "abcde":
        in_time = [one.xid for one in server.committed if any(k == key for _, k in one.rows)]
        assert [xid for xid in came if xid in in_time] == in_time, "a key's changes in commit order"


def test_numbers_above_the_last_would_skip_and_ids_would_be_out_of_order() -> None:
    """The model does what the rule is for: the two rules that come to mind fail in it."""
    skipped = unordered = 0
    for seed in range(300):
        server, _, journal = live(seed, 3)
        came = [xid for _, xid in journal]
        last = 0
        for one in server.committed:
            skipped += any(number < last for number, _ in one.rows)
            last = max([last, *(number for number, _ in one.rows)])
        unordered += came != sorted(came)
    assert skipped > 100
    assert unordered > 100


def test_a_snapshot_is_read_as_the_server_writes_it() -> None:
    snapshot = Snapshot.parse("10:20:10,14")
    assert [xid for xid in range(8, 22) if not snapshot.sees(xid)] == [10, 14, 20, 21]
    assert str(snapshot) == "10:20:10,14"
    assert str(Snapshot.parse("1:1:")) == str(NOTHING) == "1:1:"
    assert not NOTHING.sees(3)
    far = Snapshot.parse(f"{EPOCH}:{EPOCH + 5}:{EPOCH}")
    assert far.sees(EPOCH - 1)
    assert not far.sees(EPOCH)


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:x", "a:b:", "1:2:3:4"])
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="no snapshot"):
        Snapshot.parse(text)


def test_what_is_not_in_its_order_or_not_of_the_batch_is_refused() -> None:
    batch = Batch(7, Snapshot(10, 10, ()), Snapshot(20, 20, ()), 500)
    a, b = Written(11, 5, 1, 1, 0), Written(12, 9, 1, 1, 0)
    assert [lsn for lsn, _ in placed(batch, [a, b])] == [500, 501]
    assert end_lsn(batch, 2) == 502
    for wrong in ([b, a], [a, a], [Written(9, 5, 1, 1, 0)], [Written(20, 5, 1, 1, 0)]):
        with pytest.raises(OutOfOrder, match="batch 7"):
            list(placed(batch, wrong))
