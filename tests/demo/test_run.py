"""The whole demo, as `watcher demo --seconds 3 --json` runs it. Figures depend on the machine; the proof does not."""

from __future__ import annotations

import json

import pytest

from backend_watcher.demo import run
from backend_watcher.errors import ConfigError


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nothing_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    code = run.main(seconds=3, as_json=True)
    out, _ = capfd.readouterr()
    found = json.loads(out)
    assert found["ok"], found["verdict"]
    assert code == 0
    assert (found["lost"], found["wrong"], found["kills"]) == (0, 0, 1)
    assert found["watched"]["orders"] == found["inline"]["orders"] == 3 * run.RATE
    assert found["notified"] == found["watched"]["crossings"] > 0
    # Everything there was at first, and for each order at least itself, its wallet, a line and a product.
    assert found["changes"] > 120 + 400 + 4 * found["watched"]["orders"]
    assert found["outage_ms"] > 0
    for figure in ("commit_to_cache_ms", "commit_to_handler_ms", "commit_to_revenue_ms"):
        assert 0 < found[figure]["p50"] <= found[figure]["p99"]
    for phase in ("inline", "watched"):
        assert 0 < found[phase]["p50_ms"] <= found[phase]["p95_ms"] <= found[phase]["p99_ms"]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NEEDED", ("json", "no_such_package"))
    with pytest.raises(ConfigError) as caught:
        run.main()
    assert caught.value.faults == ["the demo needs no_such_package: pip install 'backend-watcher[demo]'"]
    assert "pip install 'backend-watcher[demo]'" in caught.value.remedy


@pytest.mark.parametrize(("seconds", "rate"), [(0, 60.0), (-1, 60.0), (3, 0.0)])
def test_a_load_that_would_show_nothing_is_refused(seconds: int, rate: float) -> None:
    with pytest.raises(ConfigError):
        run.main(seconds=seconds, rate=rate)
