"""Bytes become events. Pure: no I/O, no clock. Compiled where a C compiler is at hand."""
