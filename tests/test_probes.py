"""Named places: who may name them, what they do, and that they cost nothing otherwise."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_watcher import probes
from backend_watcher.probes import ProbeError, arm, arm_from_environment, disarm, reach

SOURCE = Path(probes.__file__).parent
PLACE = "journal.before_commit"


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    disarm()
    yield
    disarm()


def test_the_names_are_the_places_in_the_code() -> None:
    pattern = re.compile(r'\breach\("([^"]+)"\)')
    files = [path for path in SOURCE.rglob("*.py") if path.name != "probes.py"]
    places = {name for path in files for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert places == probes.NAMES


def test_nothing_happens_unless_armed() -> None:
    for name in probes.NAMES:
        reach(name)
    arm(PLACE, lambda: pytest.fail("not this one"))
    reach("journal.after_commit")


def test_an_armed_place_acts_every_time_until_disarmed() -> None:
    seen: list[int] = []
    arm(PLACE, lambda: seen.append(1))
    reach(PLACE)
    reach(PLACE)
    disarm()
    reach(PLACE)
    assert seen == [1, 1]


def test_a_place_that_does_not_exist_cannot_be_armed() -> None:
    with pytest.raises(ValueError, match=r"no probe is named 'journal.commit'; there are: backfill\.after_note"):
        arm("journal.commit", lambda: None)


@pytest.mark.parametrize(("wish", "nth"), [(f"{PLACE}=error", 1), (f"{PLACE}=error@1", 1), (f"{PLACE}=error@3", 3)])
def test_armed_from_a_text_it_acts_the_nth_time_and_only_then(wish: str, nth: int) -> None:
    arm_from_environment(f"capture.received=error@2, {wish}")
    for _ in range(nth - 1):
        reach(PLACE)
    with pytest.raises(ProbeError):
        reach(PLACE)
    reach(PLACE)
    reach("capture.received")
    with pytest.raises(ProbeError):
        reach("capture.received")


def test_it_is_armed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHER_PROBES", f"{PLACE}=error")
    arm_from_environment()
    with pytest.raises(ProbeError):
        reach(PLACE)


@pytest.mark.parametrize("text", ["", ",", ",,"])
def test_without_a_wish_nothing_is_armed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arm_from_environment(text)
    monkeypatch.delenv("WATCHER_PROBES", raising=False)
    arm_from_environment()
    assert not probes._armed


@pytest.mark.parametrize("wish", [PLACE, f"{PLACE}=", f"{PLACE}=explode", f"{PLACE}=kill@x", "nowhere=kill", "=kill"])
def test_a_wish_that_is_not_understood_is_refused(wish: str) -> None:
    with pytest.raises(ValueError, match=r"probe|invalid literal"):
        arm_from_environment(wish)


def test_kill_ends_the_process_as_by_sigkill() -> None:
    program = f"""
from backend_watcher import probes
probes.arm_from_environment()
for number in range(5):
    print(number, flush=True)
    probes.reach({PLACE!r})
print("still here")
"""
    environment = {"WATCHER_PROBES": f"{PLACE}=kill@3", "PYTHONPATH": str(SOURCE.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["0", "1", "2"]


def test_hang_keeps_one_thread_for_as_long_as_was_asked() -> None:
    arm_from_environment(f"{PLACE}=hang:0.2@2")
    reach(PLACE)
    begun = time.monotonic()
    reach(PLACE)
    assert time.monotonic() - begun >= 0.2
    reach(PLACE)


def test_hang_without_seconds_lasts_until_the_process_ends() -> None:
    arm_from_environment(f"{PLACE}=hang")
    passed = threading.Event()
    threading.Thread(target=lambda: (reach(PLACE), passed.set()), daemon=True).start()
    assert not passed.wait(0.3)


@pytest.mark.parametrize("wish", [f"{PLACE}=hang:soon", f"{PLACE}=kill:3"])
def test_only_hang_takes_seconds(wish: str) -> None:
    with pytest.raises(ValueError, match=r"probe|could not convert"):
        arm_from_environment(wish)
