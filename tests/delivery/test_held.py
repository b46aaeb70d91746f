"""Who waits behind whom, against a model that looks through everything it ever put aside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend_watcher.delivery.held import STALE_PLANS_MAX, Held, HeldKeys, Name
from backend_watcher.events.change import TRUNCATE, Change
from backend_watcher.events.position import Position
from backend_watcher.testing import builders

TABLES = [builders.table(), builders.table("public.other", relation_oid=16400)]

KEYS = st.integers(0, 3)
OF = st.sampled_from([0, 0, 1])
STEPS = st.one_of(
    st.tuples(st.just("row"), OF, KEYS, st.booleans()),
    st.tuples(st.just("rekey"), OF, KEYS, KEYS),
    st.tuples(st.just("truncate"), OF),
    st.tuples(st.just("works"), st.integers(0, 9)),
    st.tuples(st.just("fails"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("redrive"), st.integers(0, 9)),
    st.tuples(st.just("busy"), st.integers(0, 9), st.integers(0, 2)),
)


def at(change: Change) -> dict[Name, Position]:
    return dict.fromkeys(change.identities(), change.position)


class Group:
    """A held key, as the model knows it: which rows, and what waits, in order."""

    def __init__(self, change: Change) -> None:
        self.names = set(change.identities())
        self.queue = [change]
        self.parked = False


class Bench:
    """HeldKeys, used as delivery uses it, with the queues that the journal would keep, beside the model."""

    def __init__(self) -> None:
        self.real = HeldKeys()
        self.queues: dict[int, list[tuple[int, Change]]] = {}
        self.model: list[Group] = []
        self.delivered: list[Change] = []
        self.came: list[Change] = []
        self.now = 0.0

    def come(self, change: Change, *, fails: bool = False) -> None:
        """The stream brings a change: it waits behind its key, or is delivered, or fails."""
        self.came.append(change)
        names = set(change.identities())
        found = [group for group in self.model if group.names & names]
        blocking = self.real.blocking(change)
        assert {frozenset(held.names) for held in blocking} == {frozenset(group.names) for group in found}
        if found:
            self._join(change, blocking, found)
        elif fails:
            held = Held(self.real.new_number(), "t", "{}", at(change), 1, 0, 0, self.now, "", "", 1)
            self.real.put(held)
            self.queues[held.number] = [(self.real.take_numbers(1)[0], change)]
            self.model.append(Group(change))
        else:
            self.delivered.append(change)

    def _join(self, change: Change, blocking: list[Held], found: list[Group]) -> None:
        first, other = self.real.join(change, blocking)
        if other is not None:
            assert other.root() is first
            self.queues[first.number] += self.queues.pop(other.number)
            self.queues[first.number].sort(key=lambda one: one[0])
        self.queues[first.number].append((self.real.take_numbers(1)[0], change))
        merged = Group(change)
        everything = [one for group in found for one in group.queue]
        # In the order in which they were put aside, whichever key they were put aside for.
        merged.queue = [*sorted(everything, key=lambda one: [id(c) for c in self.aside()].index(id(one))), change]
        merged.names |= set().union(*(group.names for group in found))
        merged.parked = any(group.parked for group in found)
        self.model = [group for group in self.model if group not in found] + [merged]

    def aside(self) -> list[Change]:
        """Everything that is put aside, oldest first."""
        everything = [one for queue in self.queues.values() for one in queue]
        return [change for _, change in sorted(everything, key=lambda one: one[0])]

    def truncate(self, change: Change) -> None:
        """It is delivered at once, and follows each held row of its table as a delete."""
        table = change.table.full_name
        for held in list(self.real.of_table(table)):
            group = self.group_of(held)
            rows = {one.identities()[-1]: one for one in group.queue}
            for name in sorted(name for name in rows if name[0] == table):
                gone = rows[name].as_delete(change.transaction, change.ordinal)
                self.came.append(gone)
                self._join(gone, [held], [self.group_of(held)])
        self.delivered.append(change)

    def group_of(self, held: Held) -> Group:
        (group,) = [group for group in self.model if group.names == held.names.keys()]
        return group

    def pick(self, number: int) -> Held | None:
        keys = list(self.real)
        return keys[number % len(keys)] if keys else None

    def works(self, held: Held) -> None:
        """The first of what a key holds is delivered."""
        group = self.group_of(held)
        _, change = self.queues[held.number].pop(0)
        assert change is group.queue.pop(0)
        self.delivered.append(change)
        self.real.remove_changes(held, 1)
        if not held.changes:
            self.real.release(held)
            del self.queues[held.number]
            self.model.remove(group)

    def check(self) -> None:
        """Nothing is lost, nothing is older than what its row has seen, and each key is where the model has it."""
        waiting = [change for queue in self.queues.values() for _, change in queue]
        assert len(self.delivered) + len(waiting) == len(self.came)
        assert self.real.changes == len(waiting)
        assert bool(self.real) == bool(self.model)
        assert {h.number: h.changes for h in self.real} == {number: len(queue) for number, queue in self.queues.items()}
        for held in self.real:
            group = self.group_of(held)
            assert [change for _, change in self.queues[held.number]] == group.queue
            assert (held.due is None) == group.parked
            for name, last in held.names.items():
                assert last >= max([c.position for c in group.queue if name in c.identities()], default=last)
            assert self.real.get(held.number) is held
        planned = [held for held in self.real if held.due is not None and not held.busy]
        due = [held for held in planned if held.due <= self.now]
        assert self.real.due(self.now) == sorted(due, key=lambda held: (held.due, held.number))
        assert self.real.next_due() == min((held.due for held in planned), default=None)
        seen: dict[Name, Position] = {}
        for change in self.delivered:
            for name in change.identities():
                assert change.position >= seen.get(name, change.position), "an older change came last"
                seen[name] = change.position


def run(steps: list[tuple[Any, ...]]) -> Bench:
    bench = Bench()
    for number, step in enumerate(steps):
        kind, *told = step
        table = TABLES[told[0]] if kind in ("row", "rekey", "truncate") else TABLES[0]
        held = bench.pick(told[0])
        bench.now += 1.0
        if kind == "row":
            bench.come(builders.change(of=table, new={"id": told[1]}, lsn=number + 1), fails=told[2])
        elif kind == "rekey" and told[1] != told[2]:
            change = builders.change("update", table, new={"id": told[2]}, old={"id": told[1]}, lsn=number + 1)
            bench.come(change, fails=bool(number % 2))
        elif kind == "truncate":
            bench.came.append(truncate := builders.change("truncate", table, lsn=number + 1))
            bench.truncate(truncate)
        elif kind == "works" and held is not None and held.due is not None:
            bench.works(held)
        elif kind == "fails" and held is not None and held.due is not None:
            bench.real.plan(held, None if told[1] else bench.now + told[0])
            bench.group_of(held).parked = told[1]
        elif kind == "redrive" and held is not None:
            bench.real.plan(held, bench.now)
            bench.group_of(held).parked = False
        elif kind == "busy" and held is not None:
            held.busy = told[1]
        bench.check()
    return bench


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_schedule_keeps_the_order_and_loses_nothing(steps: list[tuple[Any, ...]]) -> None:
    bench = run(steps)
    while held := bench.pick(0):
        bench.works(held)
        bench.check()
    assert len(bench.delivered) == len(bench.came)


def hold(keys: HeldKeys, change: Change, due: float | None = 0.0) -> Held:
    held = Held(keys.new_number(), "public.products", "{}", at(change), 1, 0, 0, due, "", "", 1)
    keys.put(held)
    return held


def row(key: int, lsn: int = 0x1000) -> Change:
    return builders.change(new={"id": key}, lsn=lsn)


def moved(was: int, to: int, lsn: int = 0x3000) -> Change:
    return builders.change("update", new={"id": to}, old={"id": was}, lsn=lsn)


def test_an_update_of_the_key_makes_two_held_keys_one_that_waits_as_long_as_either() -> None:
    keys = HeldKeys()
    one, two = hold(keys, row(1), due=5.0), hold(keys, row(2), due=9.0)
    two.busy = 1
    first, other = keys.join(moved(2, 1), keys.blocking(moved(2, 1)))
    assert (first, other) == (one, two)
    assert (one.due, one.busy, one.changes, two.root()) == (9.0, 1, 3, one)
    assert keys.get(two.number) is None
    assert [keys.blocking(row(key)) for key in (1, 2, 3)] == [[one], [one], []]
    # While either of the two is under way nobody else tries it.
    assert keys.due(100.0) == []


def test_plans_that_were_changed_do_not_pile_up() -> None:
    keys = HeldKeys()
    held = [hold(keys, row(number), due=float(number)) for number in range(10)]
    for again in range(5 * STALE_PLANS_MAX):
        keys.plan(held[again % 10], 1000.0 + again)
    assert len(keys._plans) <= 2 * len(held) + STALE_PLANS_MAX + 1
    assert keys.due(1e9) == sorted(held, key=lambda one: one.due or 0)


@pytest.mark.parametrize(("one", "two"), [(None, 5.0), (5.0, None), (None, None)])
def test_where_either_waits_for_a_person_both_do(one: float | None, two: float | None) -> None:
    keys = HeldKeys()
    hold(keys, row(1), one)
    hold(keys, row(2), two)
    first, _ = keys.join(moved(1, 2), keys.blocking(moved(1, 2)))
    assert first.due is None


def test_what_comes_again_after_a_restart_is_known_unless_it_comes_on_purpose() -> None:
    keys = HeldKeys()
    held = hold(keys, row(1, lsn=0x2000))
    assert held.names == {("public.products", b"1"): Position(0x2000, 0)}
    assert keys.left_of(row(1, lsn=0x1000)) is None
    assert keys.left_of(row(1, lsn=0x2000)) is None
    for new in (row(1, lsn=0x2001), row(1, lsn=0x1000).as_replayed(), row(2, lsn=0x1000)):
        assert keys.left_of(new) is new


def test_rows_of_one_held_key_come_at_their_own_speeds() -> None:
    keys = HeldKeys()
    held = hold(keys, row(1, lsn=0x2000))
    keys.join(moved(2, 1, lsn=0x3000), [held])
    keys.join(row(1, lsn=0x9000), [held])
    # 2 is in a slower lane: what it brings now is new, though 1 is far ahead.
    assert keys.left_of(row(2, lsn=0x4000))
    assert keys.left_of(row(1, lsn=0x4000)) is None


def test_an_update_of_a_key_that_comes_again_may_be_new_for_one_of_its_rows() -> None:
    keys = HeldKeys()
    hold(keys, row(1, lsn=0x5000))
    again = keys.left_of(moved(1, 2, lsn=0x4000))
    assert again is not None
    assert (again.operation, again.key, again.key_before, again.position) == ("update", (2,), None, Position(0x4000, 0))
    again = keys.left_of(moved(2, 1, lsn=0x4000))
    assert again is not None
    assert (again.operation, again.key, again.position) == ("delete", (2,), Position(0x4000, 0))
    assert keys.left_of(moved(2, 1, lsn=0x6000)).key_before == (2,)  # type: ignore[union-attr]
    hold(keys, row(2, lsn=0x4500))
    assert keys.left_of(moved(2, 1, lsn=0x4000)) is None


def test_numbers_go_on_after_those_that_were_taken_up() -> None:
    keys = HeldKeys(next_change=17)
    keys.put(Held(4, "t", "{}", {("t", b"1"): Position(1, 0)}, 1, 0, 0, 0.0, "", "", changes=3))
    assert (keys.new_number(), keys.take_numbers(2), keys.take_numbers(1)) == (5, range(17, 19), range(19, 20))
    assert keys.changes == 3


def test_a_released_key_blocks_nobody_and_takes_its_count_along() -> None:
    keys = HeldKeys()
    held = hold(keys, row(1))
    keys.release(held)
    assert (keys.changes, bool(keys), keys.blocking(row(1))) == (0, False, [])


def test_what_the_journal_keeps_of_it_is_what_is_taken_up_again() -> None:
    keys = HeldKeys()
    held = hold(keys, row(1), due=None)
    note = held.note(1234.5)
    assert (note.keys, note.due_at, note.changes) == (held.names, 1234.5, 1)
    assert held.note(None).parked


def test_a_truncate_blocks_behind_nobody() -> None:
    keys = HeldKeys()
    hold(keys, row(1))
    truncate = builders.change("truncate")
    assert truncate.code == TRUNCATE
    assert keys.blocking(truncate) == []
    assert len(keys.of_table("public.products")) == 1
    assert keys.of_table("public.other") == []
