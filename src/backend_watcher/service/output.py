"""What a program's functions print: from several threads at once, each line whole and at once."""

from __future__ import annotations

import io
import sys


def print_line_by_line() -> None:
    """
    Let each line leave when it ends, be it to a terminal, a pipe or a file.

    Unbuffered (PYTHONUNBUFFERED), the pieces of one `print` leave one by one, and those of two threads mix; buffered,
    as into a pipe, lines come minutes late or never.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
