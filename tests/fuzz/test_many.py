"""The long run of broken inputs, in short."""

from __future__ import annotations

from .many import share


def test_a_share_of_it() -> None:
    seen, failed = share(20261122, 3_000)
    assert failed == []
    assert seen["refused"] > 500
    assert min(seen[door] for door in ("to_decode", "to_feed", "to_expand", "to_take")) > 50
    assert seen["measured"] == 6
