"""Log lines on standard error: for people on a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import os
import sys

import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", *, as_json: bool | None = None) -> None:
    """Say how structlog writes from now on; `as_json` decides by the terminal where it is None."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    shown = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ, exception_formatter=structlog.dev.plain_traceback
        )
    )
    exceptions = [structlog.processors.dict_tracebacks] if as_json else []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            *exceptions,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        # Lines are few, and a logger that is kept would go on writing to a stream that was closed.
        cache_logger_on_first_use=False,
    )
