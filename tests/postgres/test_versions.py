"""What is said of each version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.postgres.findings import Level
from backend_watcher.postgres.versions import judge_version


@pytest.mark.parametrize(
    ("version", "code", "word"),
    [
        (130_023, "version", "too old"),
        (90_624, "version", "too old"),
        (150_001, "minor_version", "number of columns; changes can be lost"),
        (140_017, "minor_version", "added to a publication"),
        (170_004, "minor_version", "added to a publication"),
        (170_005, "minor_version", "out of memory"),
        (180_004, "minor_version", "output plugin"),
    ],
)
def test_old_versions(version: int, code: str, word: str) -> None:
    bad = [finding for finding in judge_version(version) if finding.level is not Level.OK]
    assert [finding.code for finding in bad] == [code]
    assert word in bad[0].message


@pytest.mark.parametrize("version", [140_024, 150_019, 160_015, 170_011, 180_006, 190_000])
def test_versions_that_can_be_watched(version: int) -> None:
    (found,) = judge_version(version)
    assert (found.level, found.code) == (Level.OK, "version")


def test_what_a_version_lacks_is_said() -> None:
    (found, _) = judge_version(160_000)
    assert "pg_upgrade (17), stored generated columns in the stream (18)" in found.message
    assert "row filters" not in found.message
    (found,) = judge_version(190_001)
    assert found.message == "PostgreSQL 19.1"


@given(st.integers(14, 20), st.integers(0, 60))
def test_a_later_minor_is_never_worse_and_the_remedy_mends_everything(major: int, minor: int) -> None:
    def faults(number: int) -> list[str]:
        return [f.remedy for f in judge_version(major * 10_000 + number) if f.level is Level.WARNING]

    assert len(faults(minor + 1)) <= len(faults(minor))
    for remedy in faults(minor):
        fixed = int(remedy.split(f"{major}.")[1].split()[0])
        assert fixed > minor
        assert faults(fixed) == []
        assert faults(fixed - 1)
