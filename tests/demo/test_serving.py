"""A service says where it is once it answers, and ends when asked."""

from __future__ import annotations

from pathlib import Path

from backend_watcher.demo.processes import Child


def test_says_where_it_is_and_ends_when_asked(tmp_path: Path) -> None:
    service = Child("sellers", "backend_watcher.demo.sellers", folder=tmp_path, environment={})
    try:
        assert service.first_line()["url"].startswith("http://127.0.0.1:")
        assert service.running
    finally:
        service.end()
    assert not service.running
    assert service.log.read_text() == ""
