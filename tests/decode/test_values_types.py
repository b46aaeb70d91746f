"""The table of built-in types; the oracle test compares it with a server's catalog."""

from backend_watcher.decode.values_types import NAMES, TYPES


def test_every_number_stands_for_one_type() -> None:
    assert len(NAMES) == 2 * len(TYPES)


def test_names() -> None:
    assert NAMES[1184] == "timestamptz"
    assert NAMES[1185] == "timestamptz[]"
