"""The program that `watcher init` writes."""

from __future__ import annotations

from backend_watcher.cli import starter
from backend_watcher.testing import builders


async def test_it_shows_a_change(capsys: object) -> None:
    (one,) = starter.watcher.wanted
    assert one.tables == ("products",)
    await starter.show(builders.change(new={"id": 7}))
    assert "insert (7,)" in capsys.readouterr().out  # type: ignore[attr-defined]
