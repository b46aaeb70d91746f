"""The way to a running process: real sockets on the loopback, and a file that only its owner reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from backend_watcher.errors import JournalError
from backend_watcher.service import remote
from backend_watcher.service.remote import HOST, LINE_BYTES_MAX, NobodyThere, RemoteControl, door_path, knock
from backend_watcher.service.steering import Answer, Request

ASKED = Request(operation="pause", subscription="cache", by="root", reason="the shop moves")


class Room:
    """The process that has the journal: what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.error: Exception | None = None

    async def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return Answer(said="paused")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "shop.journal"


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
async def control(journal: Path, room: Room) -> AsyncIterator[RemoteControl]:
    control = RemoteControl(journal, room.answer)
    await control.open()
    yield control
    await control.close()


async def send(journal: Path, line: bytes) -> bytes:
    """Say something else than `knock` would."""
    port = json.loads(door_path(journal).read_bytes())["port"]
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(line)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_a_request_arrives_and_its_answer_comes_back(journal: Path, control: RemoteControl, room: Room) -> None:
    assert await knock(journal, ASKED) == Answer(said="paused")
    assert room.asked == [ASKED]


async def test_only_its_owner_can_read_the_file(journal: Path, room: Room) -> None:
    # Left by somebody who was careless with it.
    door_path(journal).write_text("{}")
    door_path(journal).chmod(0o644)
    control = RemoteControl(journal, room.answer)
    await control.open()
    assert stat.S_IMODE(door_path(journal).stat().st_mode) == 0o600
    assert json.loads(door_path(journal).read_bytes())["pid"] == os.getpid()
    await control.close()
    await control.close()
    assert not door_path(journal).exists()


async def test_it_listens_on_the_loopback_only(journal: Path, control: RemoteControl) -> None:
    assert control._server is not None
    assert [one.getsockname()[0] for one in control._server.sockets] == ["127.0.0.1"]


async def test_a_wrong_token_is_refused(journal: Path, control: RemoteControl, room: Room) -> None:
    door = json.loads(door_path(journal).read_bytes())
    door_path(journal).write_text(json.dumps(door | {"token": "wrong"}))
    assert (await knock(journal, ASKED)).faults == ["the token is wrong"]
    assert room.asked == []


@pytest.mark.parametrize(
    "line", [b"\n", b"{\n", b"[]\n", b'{"token": 1}\n', b"\xff\xfe\n", b"GET / HTTP/1.1\r\n", b"", b'{"token": "a"}']
)
async def test_garbage_is_answered_and_does_no_harm(
    journal: Path, control: RemoteControl, room: Room, line: bytes
) -> None:
    answer = json.loads(await send(journal, line))
    assert "cannot be read" in answer["faults"][0]
    assert room.asked == []
    assert (await knock(journal, ASKED)).said == "paused"


async def test_an_unknown_field_is_refused(journal: Path, control: RemoteControl, room: Room) -> None:
    token = json.loads(door_path(journal).read_bytes())["token"]
    asked = msgspec.to_builtins(ASKED) | {"evreything": True}
    answer = json.loads(await send(journal, json.dumps({"token": token, "request": asked}).encode() + b"\n"))
    assert "evreything" in answer["faults"][0]


async def test_a_line_without_end_is_cut_off(journal: Path, control: RemoteControl, room: Room) -> None:
    # Closed while much of it is unread, the connection may be reset instead.
    with contextlib.suppress(ConnectionResetError):
        assert await send(journal, b"x" * (LINE_BYTES_MAX * 2)) == b""
    assert (await knock(journal, ASKED)).said == "paused"


async def test_what_the_process_fails_with_is_told(journal: Path, control: RemoteControl, room: Room) -> None:
    room.error = JournalError("the disk is full")
    answer = await asyncio.wait_for(knock(journal, ASKED), 5)
    assert answer.faults == ["JournalError: the disk is full"]


async def test_who_says_nothing_is_not_waited_for(
    journal: Path, control: RemoteControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS_MAX", 0.05)
    port = json.loads(door_path(journal).read_bytes())["port"]
    reader, writer = await asyncio.open_connection(HOST, port)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_without_a_process_nobody_is_there(journal: Path) -> None:
    with pytest.raises(NobodyThere):
        await knock(journal, ASKED)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"port": "no", "token": "", "pid": 1}'])
async def test_a_file_that_is_none_of_ours_is_nobody(journal: Path, content: str) -> None:
    door_path(journal).write_text(content)
    with pytest.raises(NobodyThere):
        await knock(journal, ASKED)


async def test_a_process_that_was_killed_leaves_a_file_and_nobody_behind_it(journal: Path, room: Room) -> None:
    program = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from backend_watcher.service.remote import RemoteControl\n"
        "async def main():\n"
        "    await RemoteControl(pathlib.Path(sys.argv[1]), None).open()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(journal)], timeout=60)
    assert ended.returncode == -9
    assert door_path(journal).exists()
    with pytest.raises(NobodyThere):
        await knock(journal, ASKED)
    # The next process takes the place.
    control = RemoteControl(journal, room.answer)
    await control.open()
    assert (await knock(journal, ASKED)).said == "paused"
    await control.close()


async def test_one_that_does_not_answer_is_nobody(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS_MAX", 0.05)
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        door_path(journal).write_text(json.dumps({"port": port, "token": "a", "pid": 1}))
        with pytest.raises(NobodyThere, match="does not answer"):
            await knock(journal, ASKED)
