"""The wire to a Redis server: packing, errors in the watcher's words, lost scripts, lost connections."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.exceptions
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.errors import ConfigError, SinkRejected, SinkUnavailable
from backend_watcher.sinks.redis_wire import RedisServer, command, pack, pack_slowly


@given(st.lists(st.binary(), min_size=1))
def test_both_packers_say_the_same(parts: list[bytes]) -> None:
    assert pack_slowly(tuple(parts)) == pack(tuple(parts))


@pytest.mark.parametrize("url", ["localhost", "http://x:1", "redis://host:port-hush/0"])
def test_what_is_no_address_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="url: not the address") as caught:
        RedisServer("test", url)
    assert "hush" not in str(caught.value)


def test_what_is_shown_of_an_address() -> None:
    assert RedisServer("test", "redis://me:hush@cache:7000/3").address == "cache:7000/3"
    assert RedisServer("test", "redis://").address == "localhost:6379/0"
    assert RedisServer("test", "unix://:hush@/run/valkey.sock").address == "/run/valkey.sock"


async def test_nothing_is_sent_before_it_is_open() -> None:
    with pytest.raises(SinkUnavailable, match="not open"):
        await RedisServer("test", "redis://").call(b"PING")


async def test_answers_come_in_the_order_of_the_calls(url: str) -> None:
    server = RedisServer("test", url)
    await server.open()
    calls = [command(b"ECHO", b"%d" % n) for n in range(50)]
    assert await server.run(lambda: calls) == [b"%d" % n for n in range(50)]
    await server.close()


async def test_a_refused_call_leaves_no_answer_to_the_next(url: str) -> None:
    server = RedisServer("test", url)
    await server.open()
    calls = [command(b"GET"), command(b"ECHO", b"stray")]
    with pytest.raises(SinkRejected, match="wrong number of arguments"):
        await server.run(lambda: calls)
    assert await server.call(b"ECHO", b"mine") == b"mine"
    await server.close()


async def test_a_cancelled_call_leaves_no_answer_to_the_next(url: str, valkey: redis.Redis) -> None:
    server = RedisServer("test", url)
    await server.open()
    task = asyncio.create_task(server.call(b"BLPOP", b"queue", b"0"))
    while not any(client["cmd"] == "blpop" for client in valkey.client_list()):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.call(b"ECHO", b"mine") == b"mine"
    await server.close()


async def test_a_lost_connection_is_sink_unavailable_once(url: str, valkey: redis.Redis) -> None:
    server = RedisServer("test", url)
    await server.open()
    task = asyncio.create_task(server.call(b"BLPOP", b"queue", b"0"))
    while not (blocked := [c for c in valkey.client_list() if c["cmd"] == "blpop"]):
        await asyncio.sleep(0)
    valkey.client_kill_filter(_id=blocked[0]["id"])
    with pytest.raises(SinkUnavailable, match=r"test: 127\.0\.0\.1"):
        await task
    assert await server.call(b"PING") == b"PONG"
    await server.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.exceptions.ConnectionError("gone"), SinkUnavailable),
        (redis.exceptions.TimeoutError("slow"), SinkUnavailable),
        (redis.exceptions.BusyLoadingError("loading"), SinkUnavailable),
        (redis.exceptions.OutOfMemoryError("command not allowed"), SinkUnavailable),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), SinkUnavailable),
        (redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), SinkUnavailable),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), SinkUnavailable),
        (redis.exceptions.ResponseError("BUSY Redis is busy running a script"), SinkUnavailable),
        (redis.exceptions.NoPermissionError("this user has no permissions"), SinkUnavailable),
        (redis.exceptions.AuthenticationError("invalid username-password pair"), SinkUnavailable),
        (redis.exceptions.ResponseError("WRONGTYPE Operation against a key"), SinkRejected),
        (redis.exceptions.ResponseError("ERR unknown command 'X', with args beginning with: 'hush'"), SinkRejected),
        (OSError(111, "refused"), SinkUnavailable),
    ],
)
def test_every_error_has_its_kind(error: Exception, expected: type[Exception]) -> None:
    said = RedisServer("test", "redis://cache:7000").translate(error)
    assert type(said) is expected
    assert "cache:7000" in said.message
    assert "hush" not in said.message
