"""
What may be set, from where, and in which words a wrong setting is named.

The environment goes over the file, the file over `Watcher(…)`, and that over what is built in. Here everything
has the form of the file; `config.py` makes the frozen types of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from backend_watcher.capture.left_open import PREPARED_SECONDS_MAX
from backend_watcher.capture.outbox_prepare import POLL_SECONDS
from backend_watcher.capture.prepare import MAX_SPILL_BYTES, MAX_WAL_BYTES
from backend_watcher.journal.sqlite import QUOTA_BYTES, RETAIN_BYTES, RETAIN_SECONDS
from backend_watcher.service.config_file import ConfigFile, KeyPath
from backend_watcher.service.config_secrets import show
from backend_watcher.service.feeding import READ_BACK_PER_SECOND_MAX, VERIFY_EVERY_SECONDS_MIN

PREFIX = "WATCHER_"
BETWEEN = "__"
NOT_SETTINGS = frozenset({"WATCHER_CONFIG", "WATCHER_DEBUG", "WATCHER_PROBES"})
"""Variables that begin like a setting, and are read elsewhere."""

BYTES_MAX = 1 << 60


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "is not a number")
    return value


def _refuse_short(value: float) -> float:
    if 0 < value < VERIFY_EVERY_SECONDS_MIN:
        raise PydanticCustomError("greater_than_equal", "is short", {"ge": VERIFY_EVERY_SECONDS_MIN})
    return value


Whole = Annotated[int, BeforeValidator(_refuse_bool)]
Seconds = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Period = Annotated[Seconds, Field(ge=0, le=366 * 86400), AfterValidator(_refuse_short)]
Size = Annotated[Whole, Field(ge=0, le=BYTES_MAX)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class SourceSettings(_Strict):
    """The table `[source]`."""

    dsn: str | None = Field(default=None, examples=["postgresql://watcher@db.example.com:5432/shop"])
    kind: Literal["logical", "outbox", "notify"] = Field(default="logical", examples=["outbox"])
    slot: str | None = Field(default=None, examples=["watcher_shop"])
    publication: str | None = Field(default=None, examples=["watcher_shop"])
    heartbeat_seconds: Seconds = Field(default=10.0, gt=0, le=3600, examples=[10])
    max_wal_bytes: Annotated[Whole, Field(ge=1 << 20, le=BYTES_MAX)] = Field(
        default=MAX_WAL_BYTES, examples=[MAX_WAL_BYTES]
    )
    streaming: bool = Field(default=True, examples=[False])
    max_spill_bytes: Annotated[Whole, Field(ge=1 << 20, le=BYTES_MAX)] = Field(
        default=MAX_SPILL_BYTES, examples=[MAX_SPILL_BYTES]
    )
    ddl_triggers: Literal["off", "auto"] = Field(default="off", examples=["auto"])
    schema_changes: Literal["watched", "published"] = Field(default="watched", examples=["published"])
    allow_superuser: bool = Field(default=False, examples=[True])
    prepared_seconds_max: Seconds = Field(default=PREPARED_SECONDS_MAX, ge=0, examples=[600])
    outbox_notify: bool = Field(default=True, examples=[False])
    outbox_poll_seconds: Seconds = Field(default=POLL_SECONDS, ge=0.05, le=3600, examples=[1])
    outbox_table: str | None = Field(default=None, min_length=1, examples=["public.outbox"])
    channels: list[str] | None = Field(default=None, examples=[["orders"]])


class JournalSettings(_Strict):
    """The table `[journal]`."""

    path: str | None = Field(default=None, min_length=1, examples=[".watcher/shop.journal"])
    quota_bytes: Annotated[Whole, Field(ge=1 << 20, le=BYTES_MAX)] = Field(default=QUOTA_BYTES, examples=[QUOTA_BYTES])
    retain_seconds: Seconds = Field(default=RETAIN_SECONDS, ge=0, examples=[86400])
    retain_bytes: Size = Field(default=RETAIN_BYTES, examples=[RETAIN_BYTES])


class WebSettings(_Strict):
    """The table `[web]`."""

    listen: str | None = Field(default=None, examples=["127.0.0.1:8470"])


class FeedingSettings(_Strict):
    """How a subscription is fed."""

    concurrency: Whole = Field(default=2, ge=1, le=1000, examples=[2])
    batch: Whole = Field(default=1000, ge=1, le=1_000_000, examples=[1000])
    batch_seconds: Seconds = Field(default=0.0, ge=0, le=3600, examples=[0.5])
    timeout_seconds: Seconds = Field(default=30.0, gt=0, le=86400, examples=[30])
    max_in_flight: Whole = Field(default=10_000, ge=1, le=10_000_000, examples=[10_000])
    coalesce: bool = Field(default=False, examples=[True])
    attempts: Whole = Field(default=15, ge=1, le=1_000_000, examples=[15])
    retry_seconds_max: Seconds = Field(default=60.0, gt=0, le=86400, examples=[60])
    park: bool = Field(default=True, examples=[False])
    parked_max: Whole = Field(default=100_000, ge=1, le=10_000_000, examples=[100_000])
    start: Literal["now", "oldest"] = Field(default="now", examples=["oldest"])
    read_back_per_second: Seconds | None = Field(default=None, ge=0, le=READ_BACK_PER_SECOND_MAX, examples=[10])
    verify_every_seconds: Period = Field(default=0.0, examples=[86400])


class HandlerSettings(FeedingSettings):
    """What an entry for a function in Python may have: also where the function runs."""

    run_in: Literal["loop", "thread", "process"] | None = Field(default=None, examples=["process"])
    processes: Whole = Field(default=1, ge=1, le=1000, examples=[2])
    memory_bytes: Whole | None = Field(default=None, ge=64 << 20, examples=[512 << 20])


class SubscriptionSettings(FeedingSettings):
    """A whole `[[subscription]]`, without the options of its sink."""

    name: str = Field(examples=["product_cache"])
    sink: str = Field(examples=["redis_cache"])
    table: str | None = Field(default=None, examples=["products"])
    tables: list[str] | None = Field(default=None, examples=[["products", "orders"]])
    insert: bool | None = Field(default=None, examples=[True])
    update: bool | list[str] | None = Field(default=None, examples=[["stock"]])
    delete: bool | None = Field(default=None, examples=[True])
    truncate: bool | None = Field(default=None, examples=[True])


class Settings(BaseSettings):
    """Everything; the entries of `[[subscription]]` by their names, and not yet looked into."""

    model_config = SettingsConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter=BETWEEN,
        env_ignore_empty=True,
    )

    app: str | None = Field(default=None, examples=["app.py"])
    name: str | None = Field(default=None, examples=["shop"])
    source: SourceSettings = SourceSettings()
    journal: JournalSettings = JournalSettings()
    web: WebSettings = WebSettings()
    subscription: dict[str, dict[str, Any]] = {}


class _Environment(EnvSettingsSource):
    """Reads a given mapping. Only lists and tables are taken as JSON: a password of digits stays a text."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items() if value}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return value
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def read_settings(environ: Mapping[str, str], file: Mapping[str, Any], built: Mapping[str, Any]) -> Settings:
    """Put the layers over each other. Raises pydantic's ValidationError."""

    class Layers(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                _Environment(settings_cls, environ),
                InitSettingsSource(settings_cls, dict(file)),
                InitSettingsSource(settings_cls, dict(built)),
            )

    return Layers()


class Places:
    """Says where a setting came from, for the beginning of a fault."""

    def __init__(self, file: ConfigFile, environ: Mapping[str, str], indexes: Mapping[str, int]) -> None:
        self._file = file
        self._environ = {name.upper() for name, value in environ.items() if value}
        self._indexes = indexes

    def fault(self, path: KeyPath, text: str) -> str:
        """Write one line: the place, the key path, what is wrong with it."""
        place = self._of(path)
        dotted = ".".join(str(part) for part in path)
        return f"{place}: {dotted}: {text}" if place else f"{dotted}: {text}"

    def is_variable(self, path: KeyPath) -> bool:
        """Say whether the environment sets it."""
        return _variable(path) in self._environ

    def _of(self, path: KeyPath) -> str | None:
        if self.is_variable(path):
            return _variable(path)
        if path[:1] == ("subscription",) and len(path) > 1:
            index = self._indexes.get(str(path[1]))
            if index is None:
                return None
            path = ("subscription", index, *path[2:])
        return self._file.place(path)


def _variable(path: KeyPath) -> str:
    return PREFIX + BETWEEN.join(str(part) for part in path).upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """
    Name variables that look like settings and are none.

    Others may have variables that begin with WATCHER_ too (Kubernetes makes WATCHER_PORT for a service called
    watcher), so one without `__` counts only if it is nearly a setting's name.
    """
    known = {PREFIX + name.upper() for name in ("app", "name")}
    tables: dict[str, type[BaseModel]] = {"source": SourceSettings, "journal": JournalSettings, "web": WebSettings}
    for table, fields in tables.items():
        known |= {f"{PREFIX}{table}{BETWEEN}{name}".upper() for name in fields.model_fields}
    begins = tuple(f"{PREFIX}{table}{BETWEEN}".upper() for table in (*tables, "subscription"))
    faults = []
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known | NOT_SETTINGS or upper.startswith(begins):
            continue
        near = get_close_matches(upper, sorted(known), 1, 0.85)
        if near:
            faults.append(f"{name}: unknown setting; did you mean {near[0]}?")
        elif BETWEEN in upper:
            faults.append(f"{name}: unknown setting; there are {PREFIX}NAME, {', '.join(f'{t}…' for t in begins)}")
    return faults


def near_or_all(word: str, known: Iterable[str]) -> str:
    """Say what was meant, or what there is."""
    names = sorted(known)
    near = get_close_matches(word.lower(), names, 1, 0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"


def faults_of(
    error: ValidationError, model: type[BaseModel], places: Places, above: KeyPath = ()
) -> dict[KeyPath, str]:
    """Say each fault that pydantic found in our words, once for each key."""
    faults: dict[KeyPath, str] = {}
    for detail in error.errors(include_url=False, include_context=True, include_input=True):
        path, fields = _field(detail["loc"], model)
        faults.setdefault(path, places.fault((*above, *path), _words(detail, path, fields)))
    return faults


def without(
    paths: Iterable[KeyPath], environ: Mapping[str, str], values: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return both layers without these keys."""
    names = {_variable(path) for path in paths}
    inner = tuple(f"{name}{BETWEEN}" for name in names)
    kept = {n: v for n, v in environ.items() if n.upper() not in names and not n.upper().startswith(inner)}
    return kept, _pruned(values, set(paths), ())


def _pruned(values: Mapping[str, Any], paths: set[KeyPath], above: KeyPath) -> dict[str, Any]:
    return {
        key: _pruned(value, paths, (*above, key)) if isinstance(value, dict) else value
        for key, value in values.items()
        if (*above, key) not in paths
    }


def _field(location: KeyPath, model: type[BaseModel]) -> tuple[KeyPath, type[BaseModel]]:
    """Follow a location into the models; what stands behind a plain field (a union's branch) is left off."""
    path: KeyPath = ()
    for part in location:
        path = (*path, part)
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        if path != location:
            model = annotation
    if path[:1] == ("subscription",) and len(location) > 1:
        path = location[:2]
    return path, model


_WANTED = {
    "int": "is not a whole number",
    "float": "is not a number",
    "number": "is not a number",
    "finite": "is not a number",
    "bool": "is neither true nor false",
    "string": "is not a text",
    "list": "is not a list",
    "tuple": "is not a list",
    "model": "is not a table of settings",
    "dict": "is not a table of settings",
}


def _words(detail: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, name = detail["type"], str(path[-1])
    if kind == "extra_forbidden":
        return f"unknown setting; {near_or_all(name, model.model_fields)}"
    example = right_would_be(name, model)
    if kind == "missing":
        return f"is missing{example}"
    return f"{wrong_value(detail, name)}{example}"


def wrong_value(detail: ErrorDetails, name: str) -> str:
    """Say what is wrong with a value."""
    kind, context = detail["type"], detail.get("ctx", {})
    value = show(name, detail["input"])
    bounds = {"greater_than": ("above", "gt"), "greater_than_equal": ("at least", "ge")}
    bounds |= {"less_than": ("below", "lt"), "less_than_equal": ("at most", "le")}
    if kind in bounds:
        word, key = bounds[kind]
        return f"{value} is out of range; it has to be {word} {context[key]:g}"
    if kind in ("literal_error", "enum"):
        return f"{value} is not one of {context['expected']}"
    if kind == "string_too_short":
        return "is empty"
    wanted = _WANTED.get(kind.partition("_")[0])
    return f"{value} {wanted}" if wanted else f"{value} cannot be used here ({kind.replace('_', ' ')})"


def right_would_be(name: str, model: type[BaseModel]) -> str:
    """Give an example of a setting, as TOML."""
    field = model.model_fields.get(name)
    if field is None or not field.examples:
        return ""
    value = field.examples[0]
    text = str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"')
    quoted = f'"{value}"' if isinstance(value, str) else text
    return f"; right would be, for example, {name} = {quoted}"
