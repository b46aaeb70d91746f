"""The SQLite and the memory journal, side by side with a model, over thousands of random histories."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from backend_watcher.errors import OutOfOrder
from backend_watcher.events.position import START, Position
from backend_watcher.journal import MemoryJournal, SqliteJournal
from backend_watcher.testing.chunks import ALL, ChunkMaker, read_all
from backend_watcher.testing.conformance_journal import IDENTITY

SUBSCRIPTIONS = st.sampled_from(["a", "b", "c"])


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.chunk = ChunkMaker()
        self.positions = []
        self.newest = None
        self.cursors = {}
        self.notes = {}
        self.durable_lsn = 0
        self.behind = START

    @initialize(retain_bytes=st.none() | st.integers(0, 2000), tail_bytes=st.sampled_from([1, 5000, 1 << 20]))
    def begin(self, retain_bytes, tail_bytes):
        limits = {"quota_bytes": None, "retain_seconds": None, "retain_bytes": retain_bytes}
        path = Path(self.folder.name) / "journal.db"
        self.sqlite = SqliteJournal(path, tail_bytes=tail_bytes, **limits)
        self.memory = MemoryJournal(**limits)
        self.both(lambda journal: journal.open())
        self.both(lambda journal: journal.save_identity(IDENTITY, 0))

    def both(self, call):
        """Make the same call of both, then let both settle; return what they agree upon."""

        async def one(journal):
            result = await call(journal)
            await journal.flush()
            return result

        first, second = self.runner.run(one(self.sqlite)), self.runner.run(one(self.memory))
        assert first == second
        return first

    def position(self, number):
        return self.positions[number % len(self.positions)] if self.positions else START

    @rule(rows=st.integers(1, 12), commit=st.booleans())
    def append(self, rows, commit):
        one = self.chunk(rows, commit=commit)
        self.newest = one
        self.both(lambda journal: journal.append(one))
        first = one.first.ordinal
        self.positions += [Position(self.chunk.lsn, first + number) for number in range(rows)]
        self.durable_lsn = max(self.durable_lsn, one.commit_end_lsn)

    @rule()
    def append_again(self):
        if self.newest is not None:
            for journal in (self.sqlite, self.memory):
                with pytest.raises(OutOfOrder):
                    self.runner.run(journal.append(self.newest))

    @rule(lsn=st.integers(0, 1 << 14))
    def advance(self, lsn):
        self.both(lambda journal: journal.advance(lsn))
        self.durable_lsn = max(self.durable_lsn, lsn)

    @rule(name=SUBSCRIPTIONS, number=st.integers(0, 200))
    def save_cursor(self, name, number):
        position = self.position(number)
        for journal in (self.sqlite, self.memory):
            journal.save_cursor(name, position)
        self.both(lambda journal: journal.flush())
        self.cursors[name] = max(self.cursors.get(name, START), position)

    @rule(name=SUBSCRIPTIONS)
    def forget_cursor(self, name):
        for journal in (self.sqlite, self.memory):
            journal.forget_cursor(name)
        self.both(lambda journal: journal.flush())
        self.cursors.pop(name, None)

    @rule(name=st.sampled_from("xy"), text=st.none() | st.text(max_size=3))
    def set_note(self, name, text):
        self.both(lambda journal: journal.set_note(name, text))
        self.notes[name] = text

    @rule()
    def restart(self):
        async def again(journal):
            await journal.close()
            await journal.open()

        self.both(again)

    @rule(number=st.integers(0, 200), limit_bytes=st.sampled_from([1, 500, ALL]))
    def read(self, number, limit_bytes):
        after = self.position(number)

        async def one(journal):
            return [
                (block.first, block.last, block.size_bytes, [change.position for change in block.changes])
                for block in await journal.read(after, limit_bytes)
            ]

        # A tail may cut what it returns elsewhere than the file does, but never differently.
        first, second = self.runner.run(one(self.sqlite)), self.runner.run(one(self.memory))
        assert first == second

    @invariant()
    def agree(self):
        if not hasattr(self, "memory"):
            return

        async def changes(journal):
            return [(change.position, change.new.to_dict()) for change in await read_all(journal)]

        async def standing(journal):
            state = await journal.state()
            return state.first, state.last, state.durable_lsn, state.blocks, state.size_bytes, state.full

        read = [position for position, _ in self.both(changes)]
        assert read == self.positions[len(self.positions) - len(read) :]
        # What may be gone: what was behind every cursor once, and everything while there was none.
        behind = min(self.cursors.values()) if self.cursors else self.position(-1)
        self.behind = max(self.behind, behind)
        gone = self.positions[: len(self.positions) - len(read)]
        assert not gone or gone[-1] <= self.behind
        state = self.both(standing)
        assert state[2] == self.durable_lsn
        assert state[1] == (self.positions[-1] if self.positions else None)
        assert self.both(lambda journal: journal.cursors()) == self.cursors
        for name, text in self.notes.items():
            assert self.both(lambda journal, name=name: journal.get_note(name)) == text

    def teardown(self):
        if hasattr(self, "memory"):
            self.both(lambda journal: journal.flush())
            self.runner.run(self.sqlite.close())
        self.runner.close()
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
