"""
Finds the one `Watcher` of a user's program, named as `shop.py`, `package.module`, or either with `:attribute`.

What goes wrong in between is somebody else's code: it is told as a person would, with the file and line of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from backend_watcher.errors import ConfigError
from backend_watcher.service.watcher import Watcher

FRAMES_SHOWN_MAX = 5
TEXT_MAX = 300

in_worker = False
"""Whether the program is loaded by a process that only runs its functions: `Watcher.run` is refused there."""


def load_watcher(target: str) -> Watcher:
    """Import a program and return its Watcher. Raises ConfigError."""
    place, colon, attribute = target.rpartition(":")
    if not colon:
        place, attribute = target, ""
    if not place or (colon and not attribute.isidentifier()):
        raise ConfigError([f"{target!r} is no program; write shop.py, package.module, or shop.py:watcher"])
    module = _import(place)
    return _named(module, target, attribute) if attribute else _only(module, place)


def _import(place: str) -> ModuleType:
    if place.endswith(".py") or "/" in place:
        return _import_file(Path(place))
    if not all(part.isidentifier() for part in place.split(".")):
        raise ConfigError([f"{place!r} is neither a file such as shop.py nor a module such as package.module"])
    if Path(f"{place}.py").is_file():
        return _import_file(Path(f"{place}.py"))
    _search_first(Path.cwd())
    return _telling(place, lambda: importlib.import_module(place))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = get_close_matches(path.name, [there.name for there in Path(path.parent).glob("*.py")], 1)
        hint = f"; did you mean {path.with_name(near[0])}?" if near else ""
        raise ConfigError([f"there is no file {path}{hint}"], remedy="Name the program: `watcher run shop.py`.")
    if path.suffix != ".py":
        raise ConfigError([f"{path} is not a Python file"], remedy="Name the program: `watcher run shop.py`.")
    path = path.resolve()
    _search_first(path.parent)
    name = path.stem
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) != str(path):
        # A program may be called like a module that is loaded already; it must not take its place.
        name = f"watcher_program_{name}"
    return _telling(str(path), lambda: _execute(name, path))


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Registered first, as every import is: dataclasses and pickle look a class's module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _search_first(folder: Path) -> None:
    text = str(folder)
    if text not in sys.path:
        sys.path.insert(0, text)


def _telling(place: str, load: Callable[[], ModuleType]) -> ModuleType:
    """Import, and say what a program raises in a few lines of its own code."""
    remedy = "Mend the program; nothing was touched."
    try:
        return load()
    except ConfigError as error:
        where = "".join(f"{frame}: " for frame in _frames(error)[-1:])
        raise ConfigError([f"{where}{fault}" for fault in error.faults], remedy=remedy) from None
    except SyntaxError as error:
        where = f"{_short(error.filename)}:{error.lineno}" if error.filename else place
        raise ConfigError([f"{where}: {type(error).__name__}: {error.msg}"], remedy=remedy) from None
    except ModuleNotFoundError as error:
        frames = _frames(error)
        if not frames and error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise ConfigError([f"there is no module {place!r} here or among the installed packages"]) from None
        raise ConfigError(_told(place, error, frames), remedy=_install(error, remedy)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 a program may raise anything
        raise ConfigError(_told(place, error, _frames(error)), remedy=remedy) from None


def _told(place: str, error: BaseException, frames: list[str]) -> list[str]:
    said = (str(error).strip().splitlines() or [""])[0][:TEXT_MAX]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, SystemExit):
        what = "it ends itself (SystemExit)"
    shown = frames[-FRAMES_SHOWN_MAX:]
    if not shown:
        return [f"{_short(place)} cannot be imported: {what}"]
    way = f" (by way of {', '.join(shown[:-1])})" if len(shown) > 1 else ""
    return [f"{shown[-1]}: {what}{way}"]


def _frames(error: BaseException) -> list[str]:
    """Name the user's lines that an error went through: not ours, and not the import system's."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).resolve().parents[1])
    return [
        f"{_short(frame.filename)}:{frame.lineno}"
        for frame in frames
        if not frame.filename.startswith((ours, "<")) and Path(frame.filename).parent.name != "importlib"
    ]


def _install(error: ModuleNotFoundError, otherwise: str) -> str:
    name = (error.name or "").partition(".")[0]
    return f"Install the package that brings {name!r} where watcher runs." if name else otherwise


def _short(filename: str) -> str:
    """Write a path from the working directory on, where that is shorter."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename


def _named(module: ModuleType, target: str, attribute: str) -> Watcher:
    found = getattr(module, attribute, None)
    if isinstance(found, Watcher):
        return found
    watchers = _watchers(module)
    if not hasattr(module, attribute):
        hint = f"; there is {' and '.join(watchers)}" if watchers else ""
        raise ConfigError([f"{target}: there is no {attribute!r} in it{hint}"])
    raise ConfigError([f"{target}: {attribute} is not a Watcher, but of type {type(found).__name__}"])


def _only(module: ModuleType, place: str) -> Watcher:
    watchers = _watchers(module)
    if not watchers:
        raise ConfigError(
            [f"{_short(place)}: there is no Watcher in it"],
            remedy='Write `watcher = Watcher("shop")` at its top level.',
        )
    distinct = {id(watcher): watcher for watcher in watchers.values()}
    if len(distinct) > 1:
        names = ", ".join(watchers)
        raise ConfigError(
            [f"{_short(place)}: there are several Watchers in it: {names}"],
            remedy=f"Say which: {_short(place)}:{next(iter(watchers))}.",
        )
    return next(iter(distinct.values()))


def _watchers(module: ModuleType) -> dict[str, Watcher]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Watcher)}
