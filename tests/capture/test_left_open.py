"""When a prepared transaction is told of, and in which words."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.capture.left_open import PREPARED_SECONDS_MAX, judge_prepared
from backend_watcher.postgres.surroundings import PreparedSeen


def seen(age_seconds: float, gid: str = "order 7") -> PreparedSeen:
    return PreparedSeen(gid, "shop", "app", "2026-01-31 09:00:00 +00", age_seconds)


def test_it_is_told_with_what_ends_it_when_it_is_old() -> None:
    assert PREPARED_SECONDS_MAX == 600
    assert judge_prepared(None, 600) == judge_prepared(seen(600), 600) == ""
    words = judge_prepared(seen(601), 600)
    assert "'order 7' is prepared since 2026-01-31 09:00:00 +00 by app on shop" in words
    assert "ROLLBACK PREPARED 'order 7';" in words


@given(st.text(), st.floats(0, 1e6), st.floats(0, 1e6))
def test_it_is_told_exactly_when_it_is_older_and_can_be_run_as_it_is_said(gid: str, age: float, most: float) -> None:
    words = judge_prepared(seen(age, gid), most)
    assert bool(words) == (age > most)
    if words:
        quoted = re.search(r"COMMIT PREPARED '(.*)'; or ROLLBACK", words, re.DOTALL)
        assert quoted is not None
        assert quoted[1].replace("''", "\0").count("'") == 0
        assert quoted[1].replace("''", "'") == gid


def test_the_words_do_not_change_while_it_gets_older() -> None:
    assert judge_prepared(seen(700), 600) == judge_prepared(seen(800), 600)
