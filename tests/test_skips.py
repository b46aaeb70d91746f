"""What a skip may be, and what it may not be."""

import pytest

from skips import is_excused, needs, server_major


@pytest.mark.parametrize(
    ("reason", "major", "excused"),
    [
        ("filters came with PostgreSQL 15", 14, True),
        ("filters came with PostgreSQL 15", 15, False),
        ("filters came with PostgreSQL 15", 18, False),
        ("('test_x.py', 7, 'Skipped: infinite intervals came with PostgreSQL 17')", 16, True),
        ("only root can mount a small file system", 18, True),
        ("npm is not there", 14, False),
        ("", 14, False),
    ],
)
def test_only_an_older_server_is_an_excuse(reason: str, major: int, excused: bool) -> None:
    assert is_excused(reason, major) is excused


def test_a_test_says_what_it_needs() -> None:
    needs(15, "filters", 150_001)
    with pytest.raises(pytest.skip.Exception) as skipped:
        needs(15, "filters", 140_023)
    assert is_excused(str(skipped.value), 14)


def test_the_server_that_the_tests_start_says_its_version() -> None:
    assert 14 <= server_major() <= 99
    assert is_excused(f"this came with PostgreSQL {server_major() + 1}")
    assert not is_excused(f"this came with PostgreSQL {server_major()}")
