"""A user's program, and everything that can be wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_watcher.errors import ConfigError
from backend_watcher.service.load import load_watcher

GOOD = "from backend_watcher import Watcher\nwatcher = Watcher('shop')\nagain = watcher\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def fault_of(target: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_watcher(target)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    (fault,) = caught.value.faults
    assert "\n" not in fault
    return fault


@pytest.mark.parametrize(
    "target", ["shop_app.py", "./shop_app.py", "shop_app", "shop_app.py:watcher", "shop_app:again"]
)
def test_a_program_by_its_file_or_module(folder: Path, target: str) -> None:
    (folder / "shop_app.py").write_text(GOOD)
    assert load_watcher(target).name == "shop"


def test_a_module_in_a_package(folder: Path) -> None:
    (folder / "some_package").mkdir()
    (folder / "some_package" / "__init__.py").touch()
    (folder / "some_package" / "watch.py").write_text("from .inner import watcher\n")
    (folder / "some_package" / "inner.py").write_text(GOOD)
    assert load_watcher("some_package.watch").name == "shop"


def test_a_program_imports_its_neighbours_and_is_found_by_name(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "neighbour.py").write_text("NAME = 'shop'\n")
    (folder / "deep" / "main_app.py").write_text(
        "from dataclasses import dataclass\nfrom backend_watcher import Watcher\nfrom neighbour import NAME\n"
        "@dataclass\nclass Row:\n    x: 'int' = 1\nwatcher = Watcher(NAME)\n"
    )
    assert load_watcher("deep/main_app.py").name == "shop"
    assert sys.modules["main_app"].Row.__module__ == "main_app"


def test_a_program_called_like_a_loaded_module_does_not_take_its_place(folder: Path) -> None:
    import json

    (folder / "json.py").write_text(GOOD)
    assert load_watcher("json.py").name == "shop"
    assert sys.modules["json"] is json


def test_no_such_file_or_module(folder: Path) -> None:
    (folder / "shop.py").write_text(GOOD)
    assert fault_of("shpo.py") == "there is no file shpo.py; did you mean shop.py?"
    assert (
        fault_of("no_such_module.at_all")
        == "there is no module 'no_such_module.at_all' here or among the installed packages"
    )
    assert fault_of("what is this").startswith("'what is this' is neither a file such as shop.py nor a module")
    for target in ("", ":", "shop.py:", "shop.py:a b", ":watcher"):
        assert fault_of(target).startswith(f"{target!r} is no program")
    (folder / "shop.txt").touch()
    assert fault_of("./shop.txt") == "shop.txt is not a Python file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\n\nprice = prise\n", "broken.py:3: NameError: name 'prise' is not defined"),
        ("def f(:\n", "broken.py:1: SyntaxError: invalid syntax"),
        ("import no_such_package\n", "broken.py:1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)\n", "broken.py:1: it ends itself (SystemExit)"),
        ("raise ValueError('first line\\nsecond')\n", "broken.py:1: ValueError: first line"),
        (
            "from backend_watcher import Watcher\nWatcher('Not A Name')\n",
            "broken.py:2: Watcher('Not A Name'): a name has",
        ),
        ("x = 1\n", "broken.py: there is no Watcher in it"),
        (GOOD + "other = Watcher('other')\n", "broken.py: there are several Watchers in it: watcher, again, other"),
    ],
)
def test_what_is_wrong_with_a_program_is_told_with_its_line(folder: Path, text: str, said: str) -> None:
    (folder / "broken.py").write_text(text)
    assert fault_of("broken.py").startswith(said)
    assert "broken" not in sys.modules or "Watcher" in said


def test_the_way_to_the_fault_is_told_too(folder: Path) -> None:
    (folder / "outer.py").write_text("import inner_part\n")
    (folder / "inner_part.py").write_text("def f():\n    1 / 0\n\nf()\n")
    assert (
        fault_of("outer.py")
        == "inner_part.py:2: ZeroDivisionError: division by zero (by way of outer.py:1, inner_part.py:4)"
    )


def test_a_named_attribute_that_is_none(folder: Path) -> None:
    (folder / "named.py").write_text(GOOD + "number = 3\n")
    assert fault_of("named.py:nothing") == "named.py:nothing: there is no 'nothing' in it; there is watcher and again"
    assert fault_of("named.py:number") == "named.py:number: number is not a Watcher, but of type int"
