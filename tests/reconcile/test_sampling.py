"""Which changes are looked at, when, and what a look says: against a model that looks at every moment."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.events.position import Position
from backend_watcher.reconcile import sampling
from backend_watcher.reconcile.sampling import (
    LAST_LOOK_SECONDS_MIN,
    LOOKS_SECONDS,
    NOTHING,
    Entry,
    Sample,
    Sampler,
    Seen,
    Waiting,
    digest_of,
    entry_of,
)
from backend_watcher.testing.builders import table
from backend_watcher.verifiable import EXPIRED

TABLE = table()


def sample(committed: float = 0.0, written: float = 0.0, value: bytes | None = b"new") -> Sample:
    return Sample(b"p:1", digest_of(value), TABLE, Position(5, 0), committed, written)


# Which


@settings(max_examples=300, deadline=None)
@given(
    st.floats(0.01, 100),
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 3)), min_size=1, max_size=60),
)
def test_never_more_than_so_many_a_second(per_second: float, batches: list[tuple[int, float]]) -> None:
    sampler, now, taken = Sampler(per_second, 0.0), 0.0, []
    for count, pause in batches:
        now += pause
        early = now < sampler.next_at
        places = list(sampler.choose(count, now))
        assert not (early and places), "who does not ask misses nothing"
        assert places == sorted(set(places))
        assert all(0 <= place < count for place in places)
        taken += [now] * len(places)
    for number, begin in enumerate(taken):
        for more, end in enumerate(taken[number:], 1):
            # In any stretch of time: what it gathers at most, and what comes meanwhile.
            assert more <= max(per_second, 1.0) + (end - begin) * per_second + 1e-6


def test_all_are_chosen_where_few_come() -> None:
    sampler = Sampler(10.0, 0.0)
    assert [len(sampler.choose(1, 0.1 * number)) for number in range(100)] == [1] * 100


def test_every_place_of_a_batch_has_its_turn() -> None:
    sampler, seen = Sampler(1.0, 0.0), Counter[int]()
    for second in range(10_000):
        seen.update(sampler.choose(100, float(second)))
    assert set(seen) == set(range(100))
    assert max(seen.values()) < 2 * min(seen.values())


def test_nothing_is_chosen_at_no_rate() -> None:
    sampler = Sampler(0.5, 0.0)
    assert [len(sampler.choose(9, at)) for at in (0.0, 1.0, 1.9, 2.0, 3.9, 4.0)] == [1, 0, 0, 1, 0, 1]


# When

times = st.floats(0, 200, allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(times, st.floats(0, 150)), max_size=30), st.lists(times, max_size=80))
def test_each_look_is_made_once_and_not_before_its_time(
    changes: list[tuple[float, float]], moments: list[float]
) -> None:
    waiting = Waiting()
    made: dict[int, list[int]] = {}
    for committed, lag in changes:
        one = sample(committed, committed + lag)
        made[id(one)] = list(waiting.add(one))
        one.name = b"%d" % id(one)
    for now in [*sorted(moments), 1e6, 1e6, 1e6]:
        for one in waiting.due(now):
            assert now >= one.committed + LOOKS_SECONDS[one.look]
            made[int(one.name)].append(one.look)
            waiting.looked(one, Entry.THERE)
    assert all(looks == list(range(len(LOOKS_SECONDS))) for looks in made.values())
    assert not len(waiting)


def test_what_came_late_is_looked_at_after_it_was_written() -> None:
    waiting = Waiting()
    assert waiting.add(sample(0.0, 300.0)) == [0, 1]
    assert waiting.due(300.0 + LAST_LOOK_SECONDS_MIN - 0.01) == []
    (late,) = waiting.due(300.0 + LAST_LOOK_SECONDS_MIN)
    assert waiting.looked(late, Entry.THERE) == (Seen.MISSED, False)


def test_what_could_not_be_looked_at_is_due_all_the_same() -> None:
    waiting = Waiting()
    waiting.add(sample())
    for _ in range(3):
        found = waiting.due(1.5)
        assert len(found) == 1
        waiting.put_back(found)
    assert len(waiting) == 1


def test_there_are_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLES_MAX", 3)
    waiting = Waiting()
    for _ in range(5):
        waiting.add(sample())
    assert len(waiting) == 3


# What a look says


@pytest.mark.parametrize(
    ("held", "dated", "written_by", "entry"),
    [
        (b"new", True, None, Entry.THERE),
        (b"new", False, None, Entry.THERE),
        (EXPIRED, True, None, Entry.THERE),
        (b"else", True, Position(5, 1), Entry.NEWER),
        (None, True, Position(6, 0), Entry.NEWER),
        (b"else", True, Position(5, 0), Entry.OLDER),
        (b"else", True, Position(4, 9), Entry.OLDER),
        (None, True, None, Entry.OLDER),
        (b"else", False, None, Entry.OTHER),
        (None, False, None, Entry.OTHER),
    ],
)
def test_how_an_entry_stands(held: bytes | None, dated: bool, written_by: Position | None, entry: Entry) -> None:
    assert entry_of(sample(), held, dated, written_by) is entry


def test_an_entry_that_should_not_stand_there() -> None:
    gone = sample(value=None)
    assert gone.digest == NOTHING
    assert entry_of(gone, None, True, None) is Entry.THERE
    assert entry_of(gone, b"", True, None) is Entry.THERE
    assert entry_of(gone, b"back", True, Position(5, 0)) is Entry.OLDER


@pytest.mark.parametrize(
    ("entry", "seen", "suspect"),
    [
        (Entry.THERE, Seen.VISIBLE, False),
        (Entry.NEWER, Seen.VISIBLE, False),
        (Entry.OLDER, Seen.MISSED, True),
        (Entry.OTHER, Seen.UNKNOWN, True),
    ],
)
def test_only_the_last_look_makes_a_suspect(entry: Entry, seen: Seen, suspect: bool) -> None:
    waiting = Waiting()
    waiting.add(sample())
    said = [waiting.looked(one, entry) for at in (1.0, 5.0, 60.0) for one in waiting.due(at)]
    assert said == [(seen, False), (seen, False), (seen, suspect)]
