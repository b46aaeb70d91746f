"""One line of JSON per change."""

from __future__ import annotations

import io
import json
import os

import pytest

from backend_watcher.errors import SinkUnavailable
from backend_watcher.sinks.stdout import Stdout
from backend_watcher.testing.conformance_sink import insert, truncate

BATCH = [insert(1, 1, "a\nb"), truncate(2)]


class Counting(io.BytesIO):
    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


async def test_a_line_for_each_change_and_a_flush_for_each_batch() -> None:
    stream = Counting()
    sink = Stdout(stream)
    await sink.write(BATCH)
    await sink.write(BATCH)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["operation"] for line in lines] == ["insert", "truncate"] * 2
    assert lines[0]["new"] == {"id": 1, "name": "a\nb", "stock": 0}
    assert stream.flushes == 2


async def test_it_writes_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = Stdout()
    await sink.open()
    await sink.write(BATCH)
    await sink.close()
    assert len(capfdbinary.readouterr().out.splitlines()) == 2


async def test_a_reader_that_went_away_is_sink_unavailable() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    stream = os.fdopen(write_end, "wb", buffering=0)
    with pytest.raises(SinkUnavailable, match="BrokenPipeError"):
        await Stdout(stream).write(BATCH)
    stream.close()
    with pytest.raises(SinkUnavailable, match="ValueError"):
        await Stdout(stream).write(BATCH)
