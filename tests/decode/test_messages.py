"""The row that a logical message becomes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.messages import CONTEXT, MESSAGES, OWN, message_row
from backend_watcher.decode.reader import tuple_end
from backend_watcher.events.row import Row


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), st.binary())
def test_every_message_is_a_row_that_says_the_same(prefix: str, content: bytes) -> None:
    data = message_row(prefix, content)
    assert tuple_end(data, 0, len(data), len(MESSAGES.columns)) == len(data)
    assert Row(MESSAGES, b" " + data, 1, False).to_dict() == {"prefix": prefix, "content": content}


def test_what_is_ours() -> None:
    assert CONTEXT.startswith(OWN)
    assert not "backend_watchers".startswith(OWN)
