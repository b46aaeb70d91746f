"""One request: what hostile, broken and slow receivers make of it, and what we read of their answers."""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from email.utils import formatdate
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from backend_watcher.errors import ConfigError, SinkFailed, SinkGone, SinkRejected, SinkUnavailable, SomeFailed
from backend_watcher.sinks.webhook_client import ANSWER_BYTES_MAX, ANSWER_SECONDS_MAX
from sinks.receiver import SECRET, Came, hook, hooked, receiving, request_from, rows, talking

ONE = rows((1, "a"))
BOTH = ["127.0.0.1/32", "::1/128"]
"""What `localhost` may be."""


async def failure_at(url: str, **options: object) -> BaseException:
    """Send one change; return why it was not delivered."""
    async with hooked(url, **options) as sink:
        with pytest.raises((SomeFailed, SinkUnavailable, SinkGone)) as caught:
            await sink.write(ONE)
    failures = getattr(caught.value, "failures", {0: caught.value})
    assert list(failures) == [0]
    return failures[0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, SinkFailed),
        (404, SinkFailed),
        (410, SinkGone),
        (413, SinkRejected),
        (503, SinkUnavailable),
    ],
)
async def test_a_status_means_what_the_table_says(status: int, kind: type[Exception]) -> None:
    async def answer(came: Came) -> web.Response:
        return web.Response(status=status, text="hunter2 in the body")

    async with receiving(answer) as receiver:
        failure = await failure_at(receiver.url)
        assert type(failure) is kind
        assert f"webhook 127.0.0.1: answered {status}" in str(failure)
        assert "hunter2" not in str(failure)
        assert len(receiver.came) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_it_is_told_when_to_come_again(form: str) -> None:
    async def answer(came: Came) -> web.Response:
        after = "90" if form == "seconds" else formatdate(time.time() + 90, usegmt=True)
        return web.Response(status=429, headers={"Retry-After": after})

    async with receiving(answer) as receiver:
        failure = await failure_at(receiver.url)
        assert isinstance(failure, SinkUnavailable)
        assert 85 <= failure.after_seconds <= 90


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async def answer(came: Came) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with receiving(answer) as receiver:
        assert type(await failure_at(receiver.url)) is SinkFailed
        assert [came.path for came in receiver.came] == ["/hook"]


async def test_no_answer_in_time_is_a_failure_of_that_change() -> None:
    never = asyncio.Event()

    async def answer(came: Came) -> int:
        await never.wait()
        return 204

    async with receiving(answer) as receiver:
        failure = await failure_at(receiver.url, timeout_seconds=1)
        assert type(failure) is SinkFailed
        assert "no answer in 1 s" in str(failure)
        never.set()


async def test_a_head_that_drips_does_not_hold_us() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await one_moment()

    async with talking(drip) as url:
        begun = time.monotonic()
        assert "no answer in 1 s" in str(await failure_at(url, timeout_seconds=1))
        assert time.monotonic() - begun < 3


async def one_moment() -> None:
    """Let 10 ms pass for somebody who is slow."""
    moment = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, moment.set_result, None)
    await moment


async def test_a_body_that_drips_is_left_and_the_answer_stands() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await one_moment()

    async with talking(drip) as url, hooked(url) as sink:
        begun = time.monotonic()
        await sink.write(ONE)
        assert ANSWER_SECONDS_MAX <= time.monotonic() - begun < ANSWER_SECONDS_MAX + 2


class Read:
    """The sizes of what came to us over sockets of the client, and of what was made of it."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.kept: list[int] = []
        self.expanded = 0


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    read = Read()
    handler, stream = aiohttp.client_proto.ResponseHandler, aiohttp.StreamReader
    receive, feed = handler.data_received, stream.feed_data

    def received(self: aiohttp.client_proto.ResponseHandler, data: bytes) -> None:
        read.received.append(len(data))
        receive(self, data)

    def kept(self: aiohttp.StreamReader, data: bytes, *rest: object) -> object:
        # The receiver's own reading of the request, which is short, is counted with it.
        read.kept.append(len(data))
        return feed(self, data, *rest)

    def expanded(*arguments: object) -> bool:
        read.expanded += 1
        return False

    monkeypatch.setattr(aiohttp.http_parser.DeflateBuffer, "feed_data", expanded)
    monkeypatch.setattr(handler, "data_received", received)
    monkeypatch.setattr(stream, "feed_data", kept)
    return read


async def test_a_gzip_bomb_is_neither_expanded_nor_read(read: Read) -> None:
    # Blocks of a megabyte of zeros, a kilobyte each: 10,240 of them would be 10 GB.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(b"\0" * 1_048_576) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b"\0" * 1_048_576) + packer.flush(zlib.Z_FULL_FLUSH)
    sent = 0

    async def bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        request = await request_from(reader)
        assert b"accept-encoding: identity\r\n" in request.lower()
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20000000\r\n\r\n"
        writer.write(head + first)
        for _ in range(10_240):
            writer.write(block)
            await writer.drain()
            sent += len(block)

    async with talking(bomb) as url, hooked(url) as sink:
        await sink.write(ONE)
        assert len(zlib.decompressobj(31).decompress(first + 10 * block)) == 11 * 1_048_576
        assert ANSWER_BYTES_MAX < sum(read.received) <= 65_536
        assert sum(read.kept) <= 65_536
        assert read.expanded == 0
        assert sent < 10_240 * len(block)


async def test_a_long_answer_ends_the_connection_and_a_short_one_keeps_it() -> None:
    sockets = []
    bodies = {"long": b"x" * 1_000_000, "short": b"x" * 1_000}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await request_from(reader)
            sockets.append(writer.get_extra_info("peername"))
            body = bodies["long" if b'"name":"long"' in request else "short"]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    async with talking(serve) as url, hooked(url, connections=1) as sink:
        await sink.write(rows((1, "short"), (1, "short"), (1, "long"), (1, "short")))
        assert sockets[0] == sockets[1] == sockets[2] != sockets[3]


async def test_a_reset_after_the_request_is_a_failure_of_that_change() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.transport.abort()

    async with talking(reset) as url:
        failure = await failure_at(url)
        assert type(failure) is SinkFailed
        assert "ended without an answer" in str(failure)


@pytest.mark.parametrize("answer", [b"hunter2\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000, b"\x16\x03\x01"])
async def test_what_is_no_answer_is_a_failure(answer: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_from(reader)
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with talking(babble) as url:
        failure = await failure_at(url)
        assert type(failure) is SinkFailed
        assert "hunter2" not in str(failure)


async def test_nobody_there_is_unavailable() -> None:
    async with receiving() as receiver:
        url = receiver.url
    failure = await failure_at(url)
    assert isinstance(failure, SinkUnavailable)
    assert "cannot be reached" in str(failure)


async def test_cookies_are_not_kept() -> None:
    async def answer(came: Came) -> web.Response:
        return web.Response(headers={"Set-Cookie": "id=1; Path=/"})

    async with receiving(answer) as receiver:
        # Not by its number: from there no jar takes cookies.
        async with hooked(receiver.url.replace("127.0.0.1", "localhost"), allow_networks=BOTH) as sink:
            await sink.write(rows((1, "a"), (1, "b")))
        assert [came.headers.get("cookie") for came in receiver.came] == [None, None]


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def server_side(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_a_receiver_with_a_trusted_certificate_is_delivered_to(authority: trustme.CA, ca_file: str) -> None:
    async with receiving(tls=server_side(authority, "localhost")) as receiver:
        async with hooked(receiver.url, ca_file=ca_file, allow_http=False, allow_networks=BOTH) as sink:
            await sink.write(ONE)
        assert len(receiver.came) == 1


@pytest.mark.parametrize("fault", ["nobody knows who signed it", "it is for another name"])
async def test_a_wrong_certificate_is_refused(authority: trustme.CA, ca_file: str, fault: str) -> None:
    name = "localhost" if fault.startswith("nobody") else "other.example"
    async with receiving(tls=server_side(authority, name)) as receiver:
        trusted = None if fault.startswith("nobody") else ca_file
        failure = await failure_at(receiver.url, ca_file=trusted, allow_networks=BOTH)
        assert isinstance(failure, SinkUnavailable)
        assert "certificate is not trusted" in str(failure)
        assert receiver.came == []


async def test_plain_text_where_tls_was_expected_is_unavailable() -> None:
    async with receiving() as receiver:
        failure = await failure_at(receiver.url.replace("http:", "https:"))
        assert isinstance(failure, SinkUnavailable)
        assert receiver.came == []


async def test_nobody_who_shakes_hands_is_unavailable() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await reader.read()

    async with talking(silent) as url:
        failure = await failure_at(url.replace("http:", "https:"), timeout_seconds=1)
        assert isinstance(failure, SinkUnavailable)
        assert "no connection in 0.5 s" in str(failure)


async def test_a_ca_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (empty, tmp_path / "none.pem"):
        with pytest.raises(ConfigError, match=r"^ca_file: .* cannot be used: .*; right would be"):
            hook("https://example.com", ca_file=str(path))


async def test_a_closed_sink_opens_again_and_a_second_open_is_nothing() -> None:
    async with receiving() as receiver:
        sink = hook(receiver.url, secret=SECRET)
        await asyncio.gather(sink.open(), sink.open())
        await sink.close()
        await sink.write(ONE)
        assert receiver.came[0].path == "/hook"
        await sink.close()
