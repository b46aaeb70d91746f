"""`watcher init`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.cli import settings
from cli.commands import Done

Run = Callable[..., Done]


def test_two_files_that_work_together(run: Run, folder: Path) -> None:
    done = run("init", "--name", "my_shop")
    assert (done.code, done.err) == (0, "")
    assert "wrote watcher.toml" in done.out
    config, watcher = settings.read(None, None, complete=False)
    assert watcher is not None
    assert (config.name, config.source.slot, watcher.name) == ("my_shop", "watcher_my_shop", "my_shop")
    assert [one.name for one in watcher.wanted] == ["show"]


def test_every_line_of_the_file_that_is_commented_out_is_right(run: Run, folder: Path) -> None:
    run("init", "--name", "shop")
    path = folder / "watcher.toml"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(
            line[2:] if line.startswith("# [[") or (" = " in line[:24] and line[:2] == "# ") else line for line in lines
        )
    )
    config, _ = settings.read(None, None)
    assert config.source.dsn == "postgresql://watcher:password@localhost:5432/shop"
    assert (config.journal.quota_bytes, config.journal.retain_seconds) == (10 << 30, 604800)
    (cache,) = config.subscriptions
    assert (cache.name, cache.update) == ("product_cache", ("name", "stock"))
    assert config.overrides == {"show": {"concurrency": 4, "run_in": "process"}}


def test_nothing_is_overwritten_without_force(run: Run, folder: Path) -> None:
    (folder / "app.py").write_text("mine")
    done = run("init")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: app.py exists already")
    assert not (folder / "watcher.toml").exists()
    assert (folder / "app.py").read_text() == "mine"
    assert run("init", "--force", "--name", "x").code == 0
    assert (folder / "app.py").read_text() != "mine"


def test_a_new_folder_gives_its_name(run: Run, folder: Path) -> None:
    done = run("init", "My Shop-2", "--json")
    assert done.json == {"written": ["My Shop-2/watcher.toml", "My Shop-2/app.py"], "exit_code": 0}
    assert 'name = "my_shop_2"' in (folder / "My Shop-2" / "watcher.toml").read_text()


@pytest.mark.parametrize("name", ["", "Shop", "a-b", "a" * 41])
def test_a_name_that_is_none(run: Run, name: str) -> None:
    assert run("init", "--name", name).code == 2


def test_a_folder_that_cannot_be_made(run: Run, folder: Path) -> None:
    (folder / "file").touch()
    done = run("init", "file/inside", "--name", "x")
    assert done.code == 2
    assert "cannot be written" in done.err
