"""What the process tells of itself: counted, logged when it changes, noted for `watcher status`."""

import json
from dataclasses import replace

from structlog.testing import capture_logs

from backend_watcher.errors import SinkUnavailable
from backend_watcher.events.position import Position
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.journal.memory import MemoryJournal
from backend_watcher.service.observe import Figures
from backend_watcher.testing.conformance_held import KEY


def test_failing_and_delivering_again_are_states() -> None:
    figures = Figures(["cache"])
    with capture_logs() as logs:
        figures.failed("cache", SinkUnavailable("redis does not answer"), 1, 0.5)
        assert figures.subscriptions["cache"].state == "retrying"
        figures.delivered("cache", 3, 0.1, 0)
        figures.delivered("cache", 3, 0.1, 0)
    assert [entry["event"] for entry in logs] == ["delivery failed", "subscription delivers again"]
    assert logs[0]["remedy"] == SinkUnavailable.remedy
    cache = figures.subscriptions["cache"]
    assert (cache.state, cache.error, cache.delivered, cache.failures) == ("running", None, 6, 1)


def test_a_subscription_that_stopped_says_so() -> None:
    figures = Figures(["cache"])
    figures.failed("cache", RuntimeError("no"), 1, None)
    figures.subscription_state("cache", "stopped", "RuntimeError: no")
    assert (figures.subscriptions["cache"].state, figures.subscriptions["cache"].detail) == (
        "stopped",
        "RuntimeError: no",
    )


def test_held_keys_are_counted_and_a_parked_one_is_told_once() -> None:
    figures = Figures(["cache"])
    with capture_logs() as logs:
        figures.held("cache", replace(KEY, number=1, changes=1))
        figures.held("cache", replace(KEY, number=1, changes=2))
        figures.held("cache", replace(KEY, number=2, due_at=None, changes=1))
        figures.held("cache", replace(KEY, number=2, due_at=None, changes=5))
    assert figures.subscriptions["cache"].keys == {1: (False, 2), 2: (True, 5)}
    figures.released("cache", 1)
    assert figures.subscriptions["cache"].keys == {2: (True, 5)}
    assert [entry["event"] for entry in logs] == [
        "a key failed and is held; the others go on",
        "parked: a key waits for a person; the others go on",
    ]
    assert "watcher parked redrive cache 2" in logs[1]["remedy"]


def test_a_prepared_transaction_is_told_with_what_ends_it() -> None:
    figures = Figures(["cache"])
    with capture_logs() as logs:
        figures.source_state("prepared_open", "COMMIT PREPARED 'x'")
    assert (logs[0]["event"], logs[0]["log_level"]) == ("a prepared transaction is left open", "warning")
    assert logs[0]["detail"] == "COMMIT PREPARED 'x'"


def test_wal_that_is_kept_is_told_by_how_bad_it_is() -> None:
    figures = Figures(["cache"])
    with capture_logs() as logs:
        for state in ("wal_warning", "wal_alarm", "streaming"):
            figures.source_state(state, "60 % of source.max_wal_bytes")
    assert [entry["log_level"] for entry in logs] == ["warning", "error", "info"]
    assert logs[1]["detail"] == "60 % of source.max_wal_bytes"


def test_a_schema_change_is_told_by_how_bad_it_is_and_wakes_who_passes_it_on() -> None:
    figures, woken = Figures(["cache"]), []
    figures.on_schema_change.append(lambda: woken.append(1))
    change = SchemaChange(3, 1.0, "column_added", "public.a", "column c was added", False, "it is NULL", "Nothing.")
    with capture_logs() as logs:
        figures.schema_changed(change)
        figures.schema_changed(replace(change, kind="rewritten", needs_reread=True))
        figures.schema_changed(replace(change, kind="identity_lost"))
    assert [entry["log_level"] for entry in logs] == ["warning", "error", "error"]
    assert (logs[0]["number"], logs[0]["table"], logs[0]["remedy"]) == (3, "public.a", "Nothing.")
    assert len(woken) == 3


async def test_notes_are_written_only_when_they_change() -> None:
    journal, figures = MemoryJournal(), Figures(["cache"])
    await journal.open()
    figures.source_state("streaming", "")
    figures.settled("cache", Position(1, 0))
    await figures.write_notes(journal, "running")
    process = json.loads(await journal.get_note("process") or "")
    assert (process["state"], process["source_state"]) == ("running", "streaming")
    await journal.set_note("process", "changed by hand")
    await figures.write_notes(journal, "running")
    assert await journal.get_note("process") == "changed by hand"
    figures.failed("cache", SinkUnavailable("gone"), 2, 1.0)
    await figures.write_notes(journal, "running")
    note = json.loads(await journal.get_note("subscription:cache") or "")
    assert (note["state"], note["attempt"], note["error"]) == ("retrying", 2, "SinkUnavailable: gone")
    await journal.close()


def test_drift_is_told_with_what_shows_it_and_never_with_what_is_in_it() -> None:
    figures = Figures(["cache"])
    with capture_logs() as logs:
        figures.drift("cache", "public.products", "different", persists=True)
        figures.drift("cache", "public.products", "different", persists=False)
        figures.verified("cache", "equal", "7 rows")
        figures.verified("cache", "different", "1 missing")
    assert [(entry["event"].split(":")[0], entry["log_level"]) for entry in logs] == [
        ("drift", "error"),
        ("drift is over", "info"),
        ("verified", "info"),
        ("verified", "error"),
    ]
    assert logs[0]["remedy"] == "`watcher verify cache public.products` shows both versions."
