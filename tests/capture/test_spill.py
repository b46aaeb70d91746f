"""Transactions in progress on disk: a model of them, and a disk that has no room."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend_watcher.capture.spill import Spill
from backend_watcher.decode.streams import Run
from backend_watcher.errors import SpillFull

XIDS = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), XIDS, st.integers(1, 6), st.binary(max_size=20)),
        st.tuples(st.just("undo"), XIDS, st.integers(1, 6), st.just(b"")),
        st.tuples(st.just("read"), XIDS, st.just(0), st.just(b"")),
        st.tuples(st.just("forget"), XIDS, st.just(0), st.just(b"")),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_is_not_undone_comes_back_in_order(tmp_path: Path, steps: list[tuple[str, int, int, bytes]]) -> None:
    spill = Spill(tmp_path / "spill", 1 << 20)
    model: dict[int, list[Run]] = {}
    gone: set[int] = set()
    for step, xid, other, data in steps:
        match step:
            case "append" if 10 * xid + other not in gone:
                # A subtransaction belongs to one transaction; its number is not used again.
                run = Run(10 * xid + other, [len(data)], data)
                spill.append(xid, [run])
                model.setdefault(xid, []).append(run)
            case "undo":
                spill.undo(xid, 10 * xid + other)
                gone.add(10 * xid + other)
                model[xid] = [run for run in model.get(xid, []) if run.xid != 10 * xid + other]
            case "forget":
                spill.forget(xid)
                model.pop(xid, None)
        if step == "read":
            assert list(spill.read(xid)) == model.get(xid, [])
    for xid in range(1, 5):
        assert list(spill.read(xid)) == model.get(xid, [])
        spill.undo(xid, xid)
    assert (len(spill), spill.size_bytes) == (0, 0)
    assert not (tmp_path / "spill").exists()


def test_it_leaves_alone_what_is_not_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "notes.txt"
    mine.write_text("keep me")
    (tmp_path / "inner").mkdir()
    spill = Spill(tmp_path, 1 << 20)
    spill.append(7, [Run(7, [1], b"x")])
    spill.append(8, [Run(8, [1], b"x")])
    spill.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner", "notes.txt"]
    assert (len(spill), spill.size_bytes, list(spill.read(7))) == (0, 0, [])


def test_what_an_earlier_process_left_is_gone_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    Spill(folder, 1 << 20).append(7, [Run(7, [1], b"x")])
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    Spill(folder, 1 << 20).clear()
    assert not folder.exists()
    # Nothing there is fine too.
    Spill(folder, 1 << 20).clear()


def test_the_bound_holds_over_all_transactions_together(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", 1000)
    spill.append(1, [Run(1, [400], b"x" * 400)])
    spill.append(2, [Run(2, [400], b"x" * 400)])
    with pytest.raises(SpillFull, match="1000 bytes"):
        spill.append(1, [Run(1, [400], b"x" * 400)])
    spill.forget(2)
    spill.append(1, [Run(1, [400], b"x" * 400)])
    assert [len(run.data) for run in spill.read(1)] == [400, 400]


def test_a_folder_that_cannot_be_written_is_no_room(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(SpillFull, match="takes no transaction"):
        Spill(in_the_way / "spill", 1000).append(1, [Run(1, [1], b"x")])


def test_a_transaction_of_which_nothing_is_for_us_leaves_no_file(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", 1000)
    spill.append(1, [])
    assert (len(spill), list(spill.read(1))) == (1, [])
    assert not (tmp_path / "spill").exists()
    spill.forget(1)
