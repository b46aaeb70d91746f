"""`watcher init`: a commented `watcher.toml` and an `app.py` to begin with."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines
from backend_watcher.errors import ConfigError

NAME_MAX = 40
_FILES = {"watcher.toml": "starter.toml", "app.py": "starter.py"}


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")] = Path(),
    name: Annotated[str | None, typer.Option("--name", help="Of the watcher; the folder's, if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    json: settings.Json = False,
) -> int:
    """Write watcher.toml and app.py."""
    name = _name(folder) if name is None else name
    if not re.fullmatch(r"[a-z0-9_]{1,40}", name):
        raise ConfigError([f"--name: {name!r} is not a name; a name has 1 to {NAME_MAX} of a-z, 0-9 and _"])
    there = [str(folder / file) for file in _FILES if (folder / file).exists()]
    if there and not force:
        raise ConfigError(
            [f"{file} exists already" for file in there], remedy="Nothing was written; --force overwrites."
        )
    texts = {file: _text(starter).replace("shop", name) for file, starter in _FILES.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{error.filename}: cannot be written: {error.strerror}"]) from None
    if json:
        print_json({"written": [str(folder / file) for file in texts], "exit_code": 0})
    else:
        print_lines(
            [
                *(f"wrote {folder / file}" for file in texts),
                "next: name your tables in app.py, set DATABASE_URL, then `watcher check` and `watcher run`",
            ]
        )
    return 0


def _name(folder: Path) -> str:
    """Make a name of the folder's."""
    return re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")[:NAME_MAX] or "app"


def _text(starter: str) -> str:
    return resources.files(__package__).joinpath(starter).read_text("utf-8")
