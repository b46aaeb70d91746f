"""Which changes are due: against the position, against what came late, on purpose."""

from __future__ import annotations

from backend_watcher.events.position import START, Position
from backend_watcher.sinks.postgres_replica_once import due, late_of, newest
from backend_watcher.testing.builders import change, table, transaction

KEYLESS = table(key=())


def test_up_to_the_position_all_is_done() -> None:
    batch = [change(new={"id": n}, lsn=5, ordinal=n) for n in range(4)]
    assert due(batch, START, ()) is batch
    assert due(batch, Position(5, 1), ()) == batch[2:]
    assert due(batch, Position(6, -1), ()) == []
    assert due(batch, Position(4, 9), {late_of(batch[2])}) == [batch[0], batch[1], batch[3]]


def test_a_replay_is_written_again_where_a_key_says_which_row() -> None:
    keyed = change(new={"id": 1}, lsn=5).as_replayed()
    keyless = change(of=KEYLESS, new={"id": 1}, lsn=6).as_replayed()
    assert due([keyed, keyless], Position(9, 0), ()) == [keyed]
    assert newest([keyed]) is None
    fresh = change(new={"id": 1}, lsn=7)
    assert newest([fresh, keyed]) is fresh


def test_what_shares_a_position_has_names_of_its_own() -> None:
    moved = change("update", new={"id": 2}, old={"id": 1}, lsn=5)
    within = transaction(9)
    made = [moved, moved.of_one_row(True), moved.of_one_row(False)]
    made += [change(new={"id": n}, lsn=3).as_delete(within, 0) for n in range(3)]
    assert len({late_of(one) for one in made}) == len(made)
    assert late_of(change(new={"id": 1}, lsn=5)) == late_of(change(new={"id": 1, "name": "x"}, lsn=5))
