"""What travels in bulk is plain data that nobody changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from backend_watcher.events.chunk import Block, Chunk
from backend_watcher.events.position import Position
from backend_watcher.testing.builders import change, table

CHUNK = Chunk(b"W1", Position(1, 0), Position(2, 3), 9, 2, (table(),))
BLOCK = Block(Position(1, 0), Position(1, 0), [change(new={"id": 1})], frozenset({"public.products"}), 10)


@pytest.mark.parametrize(("bulk", "name"), [(CHUNK, "payload"), (CHUNK, "last"), (BLOCK, "changes"), (BLOCK, "first")])
def test_it_is_shared_and_so_never_changed(bulk: Chunk | Block, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(bulk, name, None)
    assert not hasattr(bulk, "__dict__")


def test_equal_content_is_equal() -> None:
    same = Chunk(b"W1", Position(1, 0), Position(2, 3), 9, 2, CHUNK.tables)
    assert same == CHUNK
    assert Chunk(b"W1", Position(1, 0), Position(2, 4), 9, 2, CHUNK.tables) != CHUNK
