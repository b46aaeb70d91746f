"""Every sink keeps the contract."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator

import psycopg
import pytest
import redis

from backend_watcher.contracts import Sink
from backend_watcher.events.change import Change
from backend_watcher.sinks import Handler, Memory, PostgresReplica, RedisCache, Stdout
from backend_watcher.testing.conformance_sink import MakeSink, Read, Seen, SinkConformance, visible
from postgres.conftest import dsn, server  # noqa: F401 fixtures
from sinks.conftest import url, valkey, valkey_server  # noqa: F401 fixtures
from sinks.receiver import Receiver, hook, receiving


class ClosedPipe(io.BytesIO):
    def write(self, data: object) -> int:
        raise BrokenPipeError


class TestMemory(SinkConformance):
    @pytest.fixture
    def sink(self) -> Memory:
        return Memory()

    @pytest.fixture
    def make(self, sink: Memory) -> MakeSink:
        return lambda: sink

    @pytest.fixture
    def read(self, sink: Memory) -> Read:
        async def read() -> Seen:
            return visible(sink.changes)

        return read


class TestStdout(SinkConformance):
    @pytest.fixture
    def stream(self) -> io.BytesIO:
        return io.BytesIO()

    @pytest.fixture
    def make(self, stream: io.BytesIO) -> MakeSink:
        return lambda: Stdout(stream)

    @pytest.fixture
    def read(self, stream: io.BytesIO) -> Read:
        async def read() -> Seen:
            names: dict[int, str] = {}
            for line in map(json.loads, stream.getvalue().splitlines()):
                if line["operation"] == "truncate":
                    names.clear()
                    continue
                for key in (line["key"], line.get("key_before", {})):
                    names.pop(key.get("id"), None)
                if line["new"]:
                    names[line["key"]["id"]] = line["new"]["name"]
            return names

        return read

    @pytest.fixture
    def unreachable(self) -> MakeSink:
        return lambda: Stdout(ClosedPipe())


class HandlerConformance(SinkConformance):
    @pytest.fixture
    def seen(self) -> list[Change]:
        return []

    @pytest.fixture
    def read(self, seen: list[Change]) -> Read:
        async def read() -> Seen:
            return visible(seen)

        return read


class TestAsyncHandler(HandlerConformance):
    @pytest.fixture
    def make(self, seen: list[Change]) -> MakeSink:
        async def take(change: Change) -> None:
            seen.append(change)

        return lambda: Handler(take)


class TestAsyncBatchHandler(HandlerConformance):
    @pytest.fixture
    def make(self, seen: list[Change]) -> MakeSink:
        async def take(changes: list[Change]) -> None:
            seen.extend(changes)

        return lambda: Handler(take, batch=True)


class TestThreadHandler(HandlerConformance):
    @pytest.fixture
    def make(self, seen: list[Change]) -> MakeSink:
        def take(change: Change) -> None:
            seen.append(change)

        return lambda: Handler(take)


class TestThreadBatchHandler(HandlerConformance):
    @pytest.fixture
    def make(self, seen: list[Change]) -> MakeSink:
        def take(changes: list[Change]) -> None:
            seen.extend(changes)

        return lambda: Handler(take, batch=True)


class RedisConformance(SinkConformance):
    @pytest.fixture
    def secret(self) -> str:
        return "hush-hush"

    @pytest.fixture
    def unreachable(self) -> MakeSink:
        # Port 1 is nobody's.
        return lambda: RedisCache("product:{id}", url="redis://watcher:hush-hush@127.0.0.1:1/0")

    def make_sink(self, at: str, **options: object) -> Sink:
        # Without a password the server lets everybody in; ours must not show the one it was given.
        return RedisCache("product:{id}", url=at.replace("redis://", "redis://default:hush-hush@"), **options)

    @pytest.fixture(autouse=True)
    def password(self, valkey: redis.Redis):  # noqa: F811
        valkey.acl_setuser("default", enabled=True, nopass=False, passwords=["+hush-hush"], keep=True)
        yield
        valkey.acl_setuser("default", enabled=True, nopass=True, keep=True)


class JsonConformance(RedisConformance):
    @pytest.fixture
    def read(self, valkey: redis.Redis) -> Read:  # noqa: F811
        async def read() -> Seen:
            return {json.loads(v)["id"]: json.loads(v)["name"] for v in map(valkey.get, valkey.keys("product:*"))}

        return read


class TestRedisJson(JsonConformance):
    @pytest.fixture
    def make(self, url: str) -> MakeSink:  # noqa: F811
        return lambda: self.make_sink(url)


class TestRedisJsonExpiring(JsonConformance):
    @pytest.fixture
    def make(self, url: str) -> MakeSink:  # noqa: F811
        return lambda: self.make_sink(url, expire_seconds=60)


class TestRedisJsonWithoutGuard(JsonConformance):
    @pytest.fixture
    def make(self, url: str) -> MakeSink:  # noqa: F811
        return lambda: self.make_sink(url, guard=False)


class TestRedisJsonExpiringWithoutGuard(JsonConformance):
    @pytest.fixture
    def make(self, url: str) -> MakeSink:  # noqa: F811
        return lambda: self.make_sink(url, guard=False, expire_seconds=60)


class HashConformance(RedisConformance):
    @pytest.fixture
    def read(self, valkey: redis.Redis) -> Read:  # noqa: F811
        async def read() -> Seen:
            rows = map(valkey.hgetall, valkey.keys("product:*"))
            return {int(row[b"id"]): row[b"name"].decode() for row in rows}

        return read


class TestRedisHash(HashConformance):
    @pytest.fixture
    def make(self, url: str) -> MakeSink:  # noqa: F811
        return lambda: self.make_sink(url, format="hash")


class TestRedisHashWithoutGuard(HashConformance):
    @pytest.fixture
    def make(self, url: str) -> MakeSink:  # noqa: F811
        return lambda: self.make_sink(url, format="hash", guard=False, expire_seconds=60)


class TestWebhook(SinkConformance):
    @pytest.fixture
    async def receiver(self) -> AsyncIterator[Receiver]:
        async with receiving() as receiver:
            yield receiver

    @pytest.fixture
    def secret(self) -> str:
        return "hush-hush"

    @pytest.fixture
    def make(self, receiver: Receiver) -> MakeSink:
        return lambda: hook(receiver.url, token="hush-hush")

    @pytest.fixture
    def unreachable(self) -> MakeSink:
        # Port 1 is nobody's.
        return lambda: hook("http://127.0.0.1:1/hush-hush", token="hush-hush")

    @pytest.fixture
    def read(self, receiver: Receiver) -> Read:
        async def read() -> Seen:
            names: dict[int, str] = {}
            for came in receiver.came:
                data = came.json["data"]
                if data["operation"] == "truncate":
                    names.clear()
                    continue
                for key in (data["key"], data.get("key_before", {})):
                    names.pop(key.get("id"), None)
                if data["new"]:
                    names[data["key"]["id"]] = data["new"]["name"]
            return names

        return read


class TestPostgresReplica(SinkConformance):
    @pytest.fixture
    def secret(self) -> str:
        return "hush-hush"

    @pytest.fixture
    def make(self, dsn: str) -> MakeSink:  # noqa: F811
        return lambda: PostgresReplica(dsn, create=True)

    @pytest.fixture
    def unreachable(self) -> MakeSink:
        # Port 1 is nobody's.
        return lambda: PostgresReplica("postgresql://somebody:hush-hush@127.0.0.1:1/shop")

    @pytest.fixture
    def read(self, dsn: str) -> Read:  # noqa: F811
        async def read() -> Seen:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                return dict(await (await connection.execute("SELECT id, name FROM products")).fetchall())

        return read
