"""Rows that were read take their place in the stream, against a database of one page and thousands of schedules."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.capture import window as window_module
from backend_watcher.capture.window import Window
from backend_watcher.events.snapshot import Snapshot


def test_more_keys_than_can_be_remembered_count_as_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "KEYS_MAX", 3)
    window = Window(100)
    window.touch(100, "t", [b"1", b"2"])
    window.touch(101, "t", [b"3", b"4"])
    seen_nothing = Snapshot(100, 100, frozenset())
    assert window.touched(seen_nothing, "t").everything
    assert len(window) == 2
    seen_second = Snapshot(100, 102, frozenset({100}))
    assert window.touched(seen_second, "t").keys == {b"1", b"2"}


def test_what_a_snapshot_sees_is_forgotten() -> None:
    window = Window(100)
    window.touch(100, "t", [b"1"])
    window.touch(101, "t", [b"2"])
    window.touch_all(102, "u")
    window.forget(Snapshot(101, 103, frozenset({101})))
    assert len(window) == 1
    assert window.touched(Snapshot(100, 100, frozenset()), "t").keys == {b"2"}
    assert not window.touched(Snapshot(100, 100, frozenset()), "u").everything


def test_a_transaction_whose_commit_may_have_come_before_is_a_riddle() -> None:
    window = Window(100)
    window.opened([90, 91, 92])
    window.settle([91])
    window.ended(92)
    assert window.riddles(Snapshot(90, 101, frozenset({90, 91, 92}))) == {90}
    assert window.riddles(Snapshot(91, 101, frozenset({91, 92}))) == frozenset()


# A database: keys with values, transactions that commit in the stream at one time and are seen at another.


@dataclass
class _Transaction:
    xid: int
    writes: dict[int, int | None] = field(default_factory=dict)
    locks: set[int] = field(default_factory=set)


class _Model:
    """
    A source, its stream, a sink that is fed by both, and a reader of chunks.

    With `repairs` the sink holds anything at first, and keys that no row has are read and placed as rows are. What is
    placed is `filtered`, or only the rows, or nothing.
    """

    def __init__(self, seed: int, *, filtered: bool | str = True, repairs: bool = False) -> None:
        self.random = random.Random(seed)
        self.filtered = filtered
        self.repairs = repairs
        self.rows: dict[int, int] = {key: 0 for key in range(8) if self.random.random() < 0.7}
        self.streamed = dict(self.rows)
        self.next_xid = self.random.choice([3, (1 << 32) - 5, (1 << 33) + 7])
        self.completed = self.next_xid - 1
        self.running: list[_Transaction] = []
        # Committed in the stream, and not yet seen by snapshots.
        self.late: list[_Transaction] = []
        self.value = 0
        self.window: Window | None = None
        self.sink: dict[int, int] = {}
        if repairs:
            self.sink = {key: -self.random.randrange(2) for key in range(8) if self.random.random() < 0.6}
        self.chunk: tuple[Snapshot, dict[int, int | None]] | None = None
        self.low = 0
        self.riddled = 0

    def snapshot(self) -> Snapshot:
        # As PostgreSQL does: beyond the newest transaction that is over nothing is listed, running or not.
        xmax = self.completed + 1
        active = [one.xid for one in (*self.running, *self.late) if one.xid < xmax]
        return Snapshot(min(active, default=xmax), xmax, frozenset(active))

    def write(self) -> None:
        locked = {key for one in (*self.running, *self.late) for key in one.locks}
        if not self.running or self.random.random() < 0.4:
            self.running.append(_Transaction(self.next_xid))
            self.next_xid += 1
        one = self.random.choice(self.running)
        key = self.random.randrange(8)
        if key in locked - one.locks:
            return
        self.value += 1
        one.locks.add(key)
        one.writes[key] = None if self.random.random() < 0.3 else self.value

    def commit(self) -> None:
        if not self.running:
            return
        one = self.running.pop(self.random.randrange(len(self.running)))
        if self.random.random() < 0.2:
            self.completed = max(self.completed, one.xid)
            return  # rolled back
        self.late.append(one)
        for key, value in one.writes.items():
            _put(self.streamed, key, value)
            if self.window is not None:
                self.window.touch(one.xid & 0xFFFFFFFF, "t", [b"%d" % key])
            # The subscription begins when the backfill is asked for; before it nothing reaches the sink.
            if self.window is not None:
                _put(self.sink, key, value)
        if self.window is not None:
            self.window.ended(one.xid & 0xFFFFFFFF)

    def appear(self) -> None:
        if self.late:
            one = self.late.pop(self.random.randrange(len(self.late)))
            self.completed = max(self.completed, one.xid)
            for key, value in one.writes.items():
                _put(self.rows, key, value)

    def open(self) -> None:
        if self.window is None:
            self.window = Window(self.next_xid)
            self.window.opened(one.xid for one in (*self.running, *self.late))

    def read(self) -> None:
        if self.window is not None and self.chunk is None and self.low < 8:
            size = self.random.randint(1, 4)
            asked = range(self.low, min(self.low + size, 8))
            self.chunk = (self.snapshot(), {key: self.rows.get(key) for key in asked})
            self.size = size

    def mark(self) -> None:
        """Put the chunk into the stream, here."""
        if self.chunk is None:
            return
        assert self.window is not None
        snapshot, rows = self.chunk
        self.chunk = None
        touched = self.window.touched(snapshot, "t")
        if self.filtered and self.window.riddles(snapshot):
            self.riddled += 1
            return  # read again later
        for key, value in rows.items():
            if value is None and not self.repairs:
                continue
            is_filtered = self.filtered is True or (self.filtered == "rows" and value is not None)
            if not is_filtered or b"%d" % key not in touched.keys:
                _put(self.sink, key, value)
        self.window.forget(snapshot)
        self.low += self.size

    def run(self, steps: int) -> None:
        acts = [self.write, self.write, self.commit, self.appear, self.read, self.mark]
        for _ in range(self.random.randrange(12)):
            self.random.choice(acts[:4])()
        self.open()
        for _ in range(steps):
            self.random.choice(acts)()
        while self.running:
            self.commit()
        while self.late:
            self.appear()
        while self.low < 8:
            self.read()
            self.mark()


def _put(rows: dict[int, int], key: int, value: int | None) -> None:
    if value is None:
        rows.pop(key, None)
    else:
        rows[key] = value


@settings(max_examples=3000, deadline=None)
@given(st.integers(0, 1 << 62))
def test_every_schedule_ends_with_what_the_source_has(seed: int) -> None:
    model = _Model(seed)
    model.run(60)
    assert model.rows == model.streamed
    assert model.sink == model.rows


@settings(max_examples=3000, deadline=None)
@given(st.integers(0, 1 << 62))
def test_a_sink_that_held_anything_ends_with_what_the_source_has(seed: int) -> None:
    """Rows come and go with the same keys while it is read that there is none."""
    model = _Model(seed, repairs=True)
    model.run(60)
    assert model.rows == model.streamed
    assert model.sink == model.rows


@pytest.mark.parametrize(("filtered", "repairs"), [(False, False), (False, True), ("rows", True)])
def test_without_the_filter_older_rows_win(filtered: bool | str, repairs: bool) -> None:
    wrong = 0
    for seed in range(300):
        model = _Model(seed, filtered=filtered, repairs=repairs)
        model.run(60)
        wrong += model.sink != model.rows
    assert wrong > 0


def test_the_schedules_hold_riddles() -> None:
    riddled = 0
    for seed in range(300):
        model = _Model(seed)
        model.run(60)
        riddled += model.riddled
    assert riddled > 0
