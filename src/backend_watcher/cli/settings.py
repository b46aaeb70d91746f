"""What several commands take: the options, and the way from them to a Config and a Watcher."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.service.config import Config
    from backend_watcher.service.watcher import Watcher

Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
ConfigPath = Annotated[
    Path | None, typer.Option("--config", envvar="WATCHER_CONFIG", help="The settings; watcher.toml if left out.")
]
Target = Annotated[
    str | None,
    typer.Argument(help="The program: shop.py, package.module, or either with :name. Left out, `app` of the settings."),
]


def read(target: str | None, path: Path | None, *, complete: bool = True) -> tuple[Config, Watcher | None]:
    """Load the program, if there is one, and all settings. Raises ConfigError with the faults of both."""
    from backend_watcher.service.config import find_app, load_config
    from backend_watcher.service.load import load_watcher

    target = target or find_app(path, os.environ)
    try:
        watcher = load_watcher(target) if target is not None else None
    except ConfigError as error:
        raise ConfigError([*error.faults, *_other_faults(path)], remedy=error.remedy) from None
    return load_config(path, os.environ, watcher=watcher, complete=complete), watcher


def read_for_journal(target: str | None, path: Path | None) -> tuple[Config, Watcher | None]:
    """
    Read what it takes to find the journal. Raises ConfigError.

    A program is loaded only where the settings do not say whose journal it is: it may be just what does not work.
    """
    from backend_watcher.service.config import load_config

    if target is None:
        try:
            return load_config(path, os.environ, watcher=None, complete=False), None
        except ConfigError:
            pass  # with the program there may be more to go by
    return read(target, path, complete=False)


def _other_faults(path: Path | None) -> list[str]:
    """Return what is wrong with the settings in any case, whatever the program may say."""
    from backend_watcher.service.config import load_config

    try:
        load_config(
            path, {**os.environ, "WATCHER_NAME": os.environ.get("WATCHER_NAME") or "x"}, watcher=None, complete=False
        )
    except ConfigError as error:
        return error.faults
    return []
