"""No private address is reached, whatever the URL, the name service or the receiver says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from aiohttp import web

from backend_watcher.errors import ConfigError, SinkError, SinkUnavailable, SomeFailed
from backend_watcher.sinks import Webhook
from backend_watcher.sinks.webhook_address import read_networks
from backend_watcher.sinks.webhook_guard import ADDRESSES_MAX, ForbiddenAddress, Guard
from sinks.receiver import SECRET, hooked, receiving, row, rows, talking
from sinks.test_webhook_address import NOT_PUBLIC, REFUSED

PUBLIC = "8.8.8.8"


class Names:
    """A name service in an enemy's hands: its answers to one name, one after the other, the last for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def __call__(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002 the names of socket.getaddrinfo
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.asked.append(host)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in found]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (one, port) if kind == socket.AF_INET else (one, port, 0, 0))
            for kind, one in zip(kinds, found, strict=True)
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the addresses that anything here began to connect to."""
    addresses: list[str] = []
    connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def noted(self, sock, address):
        addresses.append(address[0])
        if address[0] == PUBLIC:
            raise ConnectionRefusedError(111, "the tests reach nobody outside")
        return await connect(self, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", noted)
    return addresses


async def deliver(url: str, **options: object) -> BaseException | None:
    """Try everything that could send; return what went wrong."""
    sink = None
    try:
        sink = Webhook(url, secret=SECRET, **options)
        with suppress(SinkError):
            await sink.open()
        await sink.write(rows((1, "a")))
    except (ConfigError, SinkError) as error:
        return error
    finally:
        if sink is not None:
            await sink.close()
    return None


HOSTILE = [url for urls in REFUSED.values() for url in urls if isinstance(url, str) and "example.com" not in url]
PRIVATE = [one for word, many in NOT_PUBLIC.items() if word != "not an address" for one in many]


async def test_no_hostile_url_reaches_anything(reached: list[str], names: Names) -> None:
    # The resolver of the system reads `127.1` and `0x7f.1` as addresses; so does this one.
    async with receiving() as victim:
        port = victim.url.split(":")[2].split("/")[0]
        cases = [url for one in HOSTILE for url in (one, one.replace("https:", "http:").rstrip("/") + f":{port}/")]
        for url in cases:
            host = url.partition("//")[2].partition("/")[0].rpartition(":")[0]
            names.answers[host] = [["127.0.0.1"]]
            for allow_http in (False, True):
                assert await deliver(url, allow_http=allow_http) is not None, url
        assert len(HOSTILE) >= 40
        assert (reached, victim.came) == ([], [])


@pytest.mark.parametrize("address", PRIVATE)
async def test_no_name_leads_to_a_private_address(address: str, reached: list[str], names: Names) -> None:
    names.answers["rebound.example"] = [[address]]
    error = await deliver("https://rebound.example/")
    assert isinstance(error, SinkUnavailable)
    assert "nothing was sent" in str(error)
    assert "allow_networks" in error.remedy
    # One private address among public ones spoils them all.
    names.answers["rebound.example"] = [[PUBLIC, address]]
    assert isinstance(await deliver("https://rebound.example/"), SinkUnavailable)
    assert reached == []


async def test_a_name_that_turns_private_is_not_followed(reached: list[str], names: Names) -> None:
    async with receiving() as victim:
        port = victim.url.split(":")[2].split("/")[0]
        names.answers["rebound.example"] = [[PUBLIC], ["127.0.0.1"]]
        error = await deliver(f"http://rebound.example:{port}/", allow_http=True)
        assert isinstance(error, SinkUnavailable)
        assert "127.0.0.1 is loopback" in str(error)
        assert (reached, victim.came) == ([], [])


async def test_a_name_that_turns_partly_private_is_not_followed(reached: list[str], names: Names) -> None:
    names.answers["rebound.example"] = [[PUBLIC], [PUBLIC, "127.0.0.1"]]
    assert isinstance(await deliver("https://rebound.example/"), SinkUnavailable)
    assert reached == []


async def test_what_was_checked_is_what_is_connected_to(reached: list[str], names: Names) -> None:
    # Asked at the opening and for the connection; a third question would be answered with loopback.
    names.answers["rebound.example"] = [[PUBLIC], [PUBLIC], ["127.0.0.1"]]
    error = await deliver("https://rebound.example/")
    assert isinstance(error, SinkUnavailable)
    assert names.asked == ["rebound.example"] * 2
    assert reached == [PUBLIC]


async def test_a_redirect_to_a_private_address_is_not_followed(reached: list[str]) -> None:
    async with receiving() as victim:

        async def point(came: object) -> web.Response:
            return web.Response(status=302, headers={"Location": victim.url.replace("127.0.0.1", "127.0.0.2")})

        async with receiving(point) as receiver, hooked(receiver.url) as sink:
            with pytest.raises(SomeFailed, match=r"points to 127\.0\.0\.2"):
                await sink.write(rows((1, "a")))
        assert reached == ["127.0.0.1"]
        assert victim.came == []


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    proxied = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxied.append(await reader.read(100))

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login hunter2 password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with talking(proxy) as address, receiving() as receiver:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, address)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with hooked(receiver.url) as sink:
            await sink.write(rows((1, "a")))
        assert len(receiver.came) == 1
        assert "authorization" not in receiver.came[0].headers
    assert proxied == []


async def test_an_allowed_network_is_reached_by_its_name(reached: list[str], names: Names) -> None:
    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        names.answers["near.example"] = [["127.0.0.1"]]
        async with hooked(f"http://near.example:{port}/hook") as sink:
            await sink.write([row(1, "a", 0x1000)])
        assert reached == ["127.0.0.1"]
        assert receiver.came[0].headers["host"] == f"near.example:{port}"


async def test_a_name_that_leads_nowhere_is_unavailable(names: Names) -> None:
    for answers in ([[]], None):
        if answers:
            names.answers["nobody.example"] = answers
        else:
            del names.answers["nobody.example"]
        sink = Webhook("https://nobody.example/", secret=SECRET)
        with pytest.raises(SinkUnavailable, match=r"webhook nobody\.example: cannot be reached"):
            await sink.open()
        await sink.close()


async def test_a_socket_is_made_for_no_forbidden_address(names: Names) -> None:
    guard = Guard(read_networks(["127.0.0.1/32"]))
    with pytest.raises(ForbiddenAddress, match=r"10\.0\.0\.1 is private"):
        guard.make_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443)))
    guard.make_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))).close()
    names.answers["many.example"] = [[f"8.8.8.{n}" for n in range(100)]]
    assert len(await guard.resolve("many.example")) == ADDRESSES_MAX
