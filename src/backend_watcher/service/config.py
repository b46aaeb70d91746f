"""
Settings as frozen values: from the environment, `watcher.toml`, `Watcher(…)`, and what is built in, in this order.

    name = "shop"
    app = "app.py"                      # the program with the Watcher; left out where the file says everything

    [source]
    dsn = "env:SHOP_DSN"                # a secret by reference, or the text itself
    slot = "watcher_shop"

    [[subscription]]                    # a subscription without any Python
    name = "product_cache"
    sink = "redis_cache"
    table = "products"
    key = "product:{id}"                # what is not a subscription's setting is an option of its sink

    [[subscription]]                    # without `sink`: other options for one that is declared in Python
    name = "notify_seller"
    concurrency = 4

In the environment a subscription is addressed by its name, and may stand there alone:
WATCHER_SUBSCRIPTION__PRODUCT_CACHE__URL. DATABASE_URL is taken where neither WATCHER_SOURCE__DSN nor the file
names a source. Every fault is named at once; nothing is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from backend_watcher.capture.left_open import PREPARED_SECONDS_MAX
from backend_watcher.capture.outbox_prepare import POLL_SECONDS
from backend_watcher.capture.prepare import MAX_SPILL_BYTES, MAX_WAL_BYTES
from backend_watcher.contracts import Sink
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.service.watcher import Watcher


SourceKind: TypeAlias = Literal["logical", "outbox", "notify"]


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Which PostgreSQL, and what the watcher has there. `dsn` is empty where it was not needed."""

    dsn: str = field(repr=False)
    slot: str
    publication: str
    heartbeat_seconds: float
    max_wal_bytes: int = MAX_WAL_BYTES
    """How much WAL PostgreSQL may have to keep for the slot before it is an alarm."""
    streaming: bool = True
    """Whether large transactions come while they are in progress; where messages are wanted they come whole."""
    max_spill_bytes: int = MAX_SPILL_BYTES
    """What those may take on this machine's disk until their commit."""
    ddl_triggers: Literal["off", "auto"] = "off"
    """Whether event triggers that tell of schema changes at once are made where the role may."""
    schema_changes: Literal["watched", "published"] = "watched"
    """Of which tables schema changes are told: those with a subscription, or all that the publication sends."""
    allow_superuser: bool = False
    """Whether a superuser's DSN is meant, so that nothing is said about it."""
    prepared_seconds_max: float = PREPARED_SECONDS_MAX
    """How long a transaction may stay prepared before it is told of."""
    kind: SourceKind = "logical"
    """How changes are heard; what of the other fields is for another kind is not looked at."""
    outbox_notify: bool = True
    """Whether a commit wakes the reader of the outbox; without, it looks now and then."""
    outbox_poll_seconds: float = POLL_SECONDS
    """The longest time between two such looks."""
    outbox_table: str | None = None
    """A table that the application itself writes as an outbox, in the layout Debezium reads."""
    channels: tuple[str, ...] = ()
    """What is listened to."""


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """Where the journal is, and how much it keeps. A relative path begins at the working directory."""

    path: Path
    quota_bytes: int
    retain_seconds: float
    retain_bytes: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Where the watcher answers over HTTP; an empty host: nowhere."""

    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """A subscription that was declared without Python; the fields mean what they mean for `Watcher.to`."""

    name: str
    sink: str
    tables: tuple[str, ...]
    insert: bool | None = None
    update: bool | tuple[str, ...] | None = None
    delete: bool | None = None
    truncate: bool | None = None
    concurrency: int = 2
    batch: int = 1000
    batch_seconds: float = 0.0
    timeout_seconds: float = 30.0
    max_in_flight: int = 10_000
    coalesce: bool = False
    attempts: int = 15
    retry_seconds_max: float = 60.0
    park: bool = True
    parked_max: int = 100_000
    start: Literal["now", "oldest"] = "now"
    read_back_per_second: float | None = None
    verify_every_seconds: float = 0.0
    sink_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def make_sink(self) -> Sink:
        """Make the sink; nothing is connected yet. Raises ConfigError."""
        from backend_watcher.sinks import load

        return load(self.sink)(**self.sink_options)


@dataclass(frozen=True, slots=True)
class Config:
    """
    All settings.

    `overrides` holds, by name, options for subscriptions that are declared in Python: `batch`, where a function runs,
    and those of `feeding.Feeding`.
    """

    name: str
    source: SourceConfig
    journal: JournalConfig
    subscriptions: tuple[SubscriptionConfig, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    web: WebConfig = WebConfig()


def load_config(
    path: Path | None, environ: Mapping[str, str], *, watcher: Watcher | None, complete: bool = True
) -> Config:
    """
    Read all settings; without a path `watcher.toml` of the working directory, if there is one.

    With `complete=False`, which is enough to look at a journal, a missing DSN is no fault, nor are settings for
    subscriptions of a program that is not at hand, and a missing name is that of the only journal there is.
    Raises ConfigError with a line for every fault.
    """
    from backend_watcher.service.config_reading import Reading

    return Reading(path, environ, watcher, complete=complete).config()


def find_app(path: Path | None, environ: Mapping[str, str]) -> str | None:
    """Return the program that the settings name, None if they name none. Faults are left to `load_config`."""
    from backend_watcher.service.config_file import read_config_file

    try:
        named = environ.get("WATCHER_APP") or read_config_file(path).values.get("app")
    except ConfigError:
        return None
    return named if isinstance(named, str) and named else None
