"""The names in synchronous_standby_names."""

from __future__ import annotations

import pytest

from backend_watcher.postgres.standbys import chooses, standby_names


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", ()),
        ("*", ("*",)),
        ("a", ("a",)),
        ("a, b ,c", ("a", "b", "c")),
        ("2 (a, b)", ("a", "b")),
        ("FIRST 1 (a, *)", ("a", "*")),
        ("any 1 (a,b)", ("a", "b")),
        ('ANY 1("a ""b", "c,d")', ('a "b', "c,d")),
        ("first", ("first",)),
    ],
)
def test_the_names_in_the_setting(setting: str, names: tuple[str, ...]) -> None:
    assert standby_names(setting) == names


def test_who_is_chosen() -> None:
    assert chooses("FIRST 1 (a, *)", "anything")
    assert chooses("Backend_Watcher, b", "backend_watcher")
    assert chooses('"backend_watcher:capture"', "backend_watcher:capture")
    assert not chooses("replica1, replica2", "backend_watcher:capture")
    assert not chooses("", "backend_watcher:capture")
