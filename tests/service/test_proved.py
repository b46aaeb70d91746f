"""What is shown of notes, whole, missing and broken."""

from __future__ import annotations

import json

from backend_watcher.reconcile import alarm, rounds, share
from backend_watcher.reconcile.alarm import Alarms, Doubt
from backend_watcher.reconcile.rounds import Outcome, Round, Scans
from backend_watcher.reconcile.share import Visible, Within
from backend_watcher.service.proved import proved


def test_without_notes_nothing_is_said() -> None:
    nothing = {"read_back": None, "drift": (), "scans": None}
    assert proved({}, "cache") == nothing
    broken = dict.fromkeys(("read_back:cache", "drift:cache", "scan:cache"), "{")
    assert proved(broken, "cache") == nothing


def test_everything_is_said_as_json_can_hold_it() -> None:
    alarms = Alarms()
    alarms.differs(Doubt("public.products", b"p:7", {"id": "7"}, b"7", 9), "different", 5.0)
    scans = Scans(last=Round(1.0, 2.0, {"public.products": Outcome("equal", 2.0, rows=3, entries=3)}))
    notes = {
        share.note_name("cache"): share.dump(Visible(within=[Within(1.0, 9, 1)])),
        alarm.note_name("cache"): alarm.dump(alarms) or "",
        rounds.note_name("cache"): rounds.dump(scans),
    }
    shown = json.loads(json.dumps(proved(notes, "cache")))
    assert shown["read_back"]["within"][0]["share"] == 0.9
    assert shown["drift"] == [{"table": "public.products", "entry": "p:7", "kind": "different", "since": 5.0}]
    assert (shown["scans"]["now"], shown["scans"]["last"]["verdict"]) == (None, "equal")
    assert proved(notes, "other") == proved({}, "other")
