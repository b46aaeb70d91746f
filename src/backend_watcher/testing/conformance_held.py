"""What every journal must do with changes of keys that failed: one test for each promise of `contracts.Journal`."""

# ruff: noqa: D102 - the name of a test is its promise

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend_watcher.contracts import Audit, HeldChange, HeldKey
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.conformance_journal import JournalFixtures, MakeJournal

KEY = HeldKey(
    number=1,
    table="public.products",
    key='{"id":1}',
    keys={("public.products", b"1"): Position(0x2000, 3), ("public.products", b"\x00\xff"): Position(0x2000, 1)},
    attempts=2,
    first_at=1000.25,
    last_at=1001.5,
    due_at=1002.75,
    error="KeyError: 'colour'",
    remedy="Mend it.",
)


def _held(key: int, *numbers: int) -> list[HeldChange]:
    return [HeldChange(key, number, _change(number)) for number in numbers]


def _change(number: int) -> Change:
    return builders.change(new={"id": number, "name": f"n{number}", "stock": 1}, lsn=0x1000 + number, ordinal=number)


def _told(held: HeldChange) -> tuple[Any, ...]:
    return held.key_number, held.number, held.change.position, held.change.new, held.change.event_id


class HeldConformance(JournalFixtures):
    """Derive from it beside JournalConformance; see conformance_journal.py."""

    async def test_what_is_held_comes_back_as_it_was(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5, 6), KEY)
            assert await journal.held_keys("a") == [replace(KEY, changes=2)]
            assert [_told(held) for held in await journal.held_changes("a")] == [_told(h) for h in _held(1, 5, 6)]

    async def test_what_is_held_outlives_a_restart(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5, 6), KEY)
        async with self.opened(make) as journal:
            assert await journal.held_keys("a") == [replace(KEY, changes=2)]
            assert [held.number for held in await journal.held_changes("a", 1)] == [5, 6]

    async def test_subscriptions_do_not_see_each_other(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5), KEY)
            journal.hold_changes("b", _held(1, 5), replace(KEY, attempts=9))
            journal.let_go("a", [5])
            journal.forget_key("a", 1)
            assert await journal.held_keys("a") == []
            assert await journal.held_keys("b") == [replace(KEY, attempts=9, changes=1)]

    async def test_a_number_is_kept_once(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5), KEY)
            journal.hold_changes("a", _held(2, 5))
            assert [held.key_number for held in await journal.held_changes("a")] == [1]

    async def test_a_key_is_noted_anew(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5), KEY)
            journal.hold_changes("a", [], replace(KEY, attempts=3, due_at=None))
            (key,) = await journal.held_keys("a")
            assert (key.attempts, key.parked, key.changes) == (3, True, 1)

    async def test_they_are_read_in_order_and_in_pages(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 9, 3), KEY)
            journal.hold_changes("a", _held(2, 4, 7), replace(KEY, number=2))
            assert [held.number for held in await journal.held_changes("a")] == [3, 4, 7, 9]
            assert [held.number for held in await journal.held_changes("a", 2)] == [4, 7]
            assert [held.number for held in await journal.held_changes("a", after=3, limit=2)] == [4, 7]

    async def test_let_go_is_forgotten_for_good(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5, 6, 7), KEY)
            journal.let_go("a", [5, 7])
        async with self.opened(make) as journal:
            assert [held.number for held in await journal.held_changes("a")] == [6]

    async def test_one_key_can_take_over_from_another(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5), KEY)
            journal.hold_changes("a", _held(2, 6), replace(KEY, number=2))
            journal.forget_key("a", 2, into=1)
            assert [key.number for key in await journal.held_keys("a")] == [1]
            assert [held.number for held in await journal.held_changes("a", 1)] == [5, 6]

    async def test_no_cursor_is_durable_before_what_was_held(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            one = chunk()
            await journal.append(one)
            journal.hold_changes("a", _held(1, 5), KEY)
            journal.save_cursor("a", one.last)
            await journal.flush()
        async with self.opened(make) as journal:
            assert (await journal.cursors())["a"] == one.last
            assert [held.number for held in await journal.held_changes("a")] == [5]

    async def test_a_forgotten_subscription_holds_nothing(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.hold_changes("a", _held(1, 5), KEY)
            journal.save_cursor("a", Position(0x1000, 0))
            journal.forget_cursor("a")
            assert await journal.held_keys("a") == []
            assert await journal.held_changes("a") == []
            assert "a" not in await journal.cursors()

    async def test_what_people_did_is_written_down(self, make: MakeJournal) -> None:
        entries = [Audit(float(n), "root", "discard", f"a/{n}", "the product is gone") for n in range(5)]
        async with self.opened(make) as journal:
            for entry in entries:
                await journal.audit(entry)
        async with self.opened(make) as journal:
            assert list(await journal.audits()) == entries
            assert list(await journal.audits(limit=2)) == entries[-2:]

    @pytest.mark.parametrize("kind", ["insert", "update", "delete", "truncate"])
    async def test_every_kind_of_change_can_be_held(self, make: MakeJournal, kind: str) -> None:
        row = {"id": 1, "name": "a", "stock": 2}
        one = builders.change(
            kind, new=row if kind in ("insert", "update") else None, old={"id": 1} if kind == "delete" else None
        )
        async with self.opened(make) as journal:
            journal.hold_changes("a", [HeldChange(1, 0, one)], KEY)
            (held,) = await journal.held_changes("a")
            assert (held.change.operation, held.change.key, held.change.new) == (one.operation, one.key, one.new)
