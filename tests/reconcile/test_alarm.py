"""Alarms: one for each entry, never too many, over when it is equal, and the same after a restart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.position import Position
from backend_watcher.reconcile.alarm import ALARMS_MAX, Alarms, Doubt, doubt_of, dump, load
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.sampling import Sample
from backend_watcher.testing.builders import table


def doubt(number: int = 7, since_lsn: int = 5) -> Doubt:
    return Doubt("public.products", b"p:%d" % number, {"id": str(number)}, b"%d" % number, since_lsn)


def test_an_alarm_is_news_once_and_over_once() -> None:
    alarms = Alarms()
    assert [alarms.differs(doubt(), "different", at) for at in (1.0, 2.0)] == [True, False]
    assert alarms.differs(doubt(since_lsn=9), "missing", 3.0) is False
    (alarm,) = alarms.kept
    assert (alarm.kind, alarm.since, alarm.doubt.since_lsn) == ("missing", 1.0, 9)
    assert alarms.is_equal("public.products", b"p:8") is None
    assert alarms.is_equal("public.products", b"p:7") is alarm
    assert (alarms.kept, alarms.is_equal("public.products", b"p:7")) == ([], None)


def test_there_are_never_too_many() -> None:
    alarms = Alarms()
    news = [alarms.differs(doubt(number), "different", 1.0) for number in range(ALARMS_MAX + 5)]
    assert sum(news) == len(alarms.kept) == ALARMS_MAX


def test_what_is_shown_of_one() -> None:
    alarms = Alarms()
    alarms.differs(Doubt("public.mails", b"m:\xff", {}, b"", 0), "extra", 2.5)
    assert alarms.kept[0].as_plain() == {"table": "public.mails", "entry": "m:�", "kind": "extra", "since": 2.5}


def test_a_row_is_found_by_the_columns_of_the_key() -> None:
    one = Doubt("public.products", b"p", {"id": "7", "shop": "b"}, b"7", 0)
    assert one.suspect(["shop", "id"]) == Suspect(b"p", {("b", "7")}, {b"7"})
    assert one.suspect(["id", "other"]) is None


def test_a_sample_is_looked_at_from_behind_its_own_change() -> None:
    sample = Sample(b"p:7", b"", table(), Position(99, 3), 0.0, 0.0, b"7", {"id": "7"})
    assert doubt_of(sample) == Doubt("public.products", b"p:7", {"id": "7"}, b"7", 100)


@given(
    st.lists(st.builds(Doubt, st.text(), st.binary(), st.dictionaries(st.text(), st.text()), st.binary(), st.just(1)))
)
def test_a_note_is_read_as_it_was_written(doubts: list[Doubt]) -> None:
    alarms = Alarms()
    for one in doubts:
        alarms.differs(one, "different", 1.5)
    text = dump(alarms)
    assert (text is None) == (not doubts)
    assert load(text) == alarms
    assert load("nonsense") == Alarms()
