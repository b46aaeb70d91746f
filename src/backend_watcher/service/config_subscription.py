"""One `[[subscription]]`: its route, how it is fed, and the options of its sink, held against the sink's own words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from backend_watcher.contracts import Sink
from backend_watcher.errors import ConfigError
from backend_watcher.postgres.names import parse_name
from backend_watcher.service.config import SubscriptionConfig
from backend_watcher.service.config_secrets import BadReferenceError, is_secret, resolve, scrub, show
from backend_watcher.service.config_settings import (
    HandlerSettings,
    Places,
    SubscriptionSettings,
    faults_of,
    near_or_all,
    wrong_value,
)
from backend_watcher.service.watcher import NAME
from backend_watcher.sinks import load
from backend_watcher.sinks import names as sink_names

_OURS = frozenset(SubscriptionSettings.model_fields)
_ONLY_IN_PYTHON = frozenset({"handler", "memory"})
"""Sinks that nobody can name in a file: one needs a function, the other is for tests."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the program declares: its subscriptions, whether there is one, and whether there has to be."""

    names: frozenset[str]
    known: bool
    complete: bool


class Entry:
    """Reads one entry; what is wrong with it is in `faults`."""

    def __init__(
        self, name: str, values: Mapping[str, Any], program: Program, places: Places, environ: Mapping[str, str]
    ) -> None:
        self._name = name
        self._values = {key: self._given(key, value, places) for key, value in values.items()} | {"name": name}
        self._program = program
        self._places = places
        self._environ = environ
        self._secrets: list[str] = []
        self.faults: list[str] = []
        if not NAME.fullmatch(name):
            self._fault("name", f"{show('name', name)} is not a name; a name has 1 to 40 of a-z, 0-9 and _")

    @property
    def is_override(self) -> bool:
        """It says how a subscription of the program is fed, and nothing else."""
        if "sink" in self._values:
            return False
        plain = self._values.keys() <= {"name", *HandlerSettings.model_fields}
        return self._name in self._program.names or (plain and not self._program.known and not self._program.complete)

    def override(self) -> dict[str, Any]:
        """Return the options that are set."""
        given = {key: value for key, value in self._values.items() if key != "name"}
        for key in [key for key in given if key in _OURS and key not in HandlerSettings.model_fields]:
            del given[key]
            known = ", ".join(HandlerSettings.model_fields)
            self._fault(key, f"{self._name!r} is declared in Python, which decides this; here there may be: {known}")
        try:
            return HandlerSettings.model_validate(given).model_dump(include=set(given))
        except ValidationError as error:
            self.faults += faults_of(error, HandlerSettings, self._places, ("subscription", self._name)).values()
            return {}

    def subscription(self) -> SubscriptionConfig | None:
        """Return the subscription, None if anything is wrong with it."""
        if self._name in self._program.names:
            self._fault("name", "the program declares a subscription of this name too; give one of them another")
        ours = {key: value for key, value in self._values.items() if key in _OURS}
        settings = None
        if "sink" not in ours and self._program.known:
            near = get_close_matches(self._name, sorted(self._program.names), 1)
            meant = f", like {near[0]!r}" if near else ""
            self._fault("sink", f"is missing; only subscriptions that the program declares{meant} go without")
            return None
        try:
            settings = SubscriptionSettings.model_validate(ours)
        except ValidationError as error:
            self.faults += faults_of(error, SubscriptionSettings, self._places, ("subscription", self._name)).values()
        tables = self._tables()
        options = self._sink_options({key: value for key, value in self._values.items() if key not in _OURS})
        if settings is None or self.faults:
            return None
        update = tuple(settings.update) if isinstance(settings.update, list) else settings.update
        plain = settings.model_dump(exclude={"name", "sink", "table", "tables", "update"})
        wished = getattr(self._sink(), "feeding", {})
        plain |= {key: value for key, value in wished.items() if key not in settings.model_fields_set}
        return SubscriptionConfig(self._name, settings.sink, tables, update=update, sink_options=options, **plain)

    def _tables(self) -> tuple[str, ...]:
        one, several = self._values.get("table"), self._values.get("tables")
        if one is not None and several is not None:
            self._fault("tables", "there is table too; right would be one of the two")
        key = "table" if several is None else "tables"
        if one is None and not several:
            self._fault(key, 'is missing; right would be, for example, table = "products"')
        tables = [*(several if isinstance(several, list) else ()), *((one,) if one is not None else ())]
        if not all(isinstance(table, str) for table in tables):
            return ()  # said already: not a text
        for table in tables:
            try:
                parse_name(table)
            except ConfigError as error:
                for fault in error.faults:
                    self._fault(key, fault)
        return tuple(tables)

    # The sink

    def _sink_options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Hold the options against the signature of the sink, and make one to see that it takes them."""
        sink = self._sink()
        if sink is None:
            return {}
        parameters = inspect.signature(sink).parameters
        named = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        hints = _hints(sink)
        options = {}
        for key, value in given.items():
            if key not in named and not takes_any:
                self._fault(key, f"unknown setting; {near_or_all(key, _OURS - {'name'} | named.keys())}")
            else:
                options[key] = self._option(key, value, hints.get(key, Any))
        for key, parameter in named.items():
            if parameter.default is parameter.empty and key not in given:
                self._fault(key, f"is missing; sink {self._values['sink']!r} needs it")
        if not self.faults:
            self._try_to_make(sink, options)
        return options

    def _sink(self) -> Callable[..., Sink] | None:
        name = self._values.get("sink")
        known = [known for known in sink_names() if known not in _ONLY_IN_PYTHON]
        if not isinstance(name, str):
            return None  # said already: it is missing, or not a text
        if name not in known:
            self._fault("sink", f"{show('sink', name)} is not a sink; {near_or_all(name, known)}")
            return None
        try:
            return load(name)
        except ConfigError as error:
            for fault in error.faults:
                self._fault("sink", fault)
            return None

    def _option(self, key: str, value: Any, hint: Any) -> Any:
        if isinstance(value, str) and is_secret(key):
            try:
                value = resolve(value, self._environ)
            except BadReferenceError as error:
                self._fault(key, str(error))
                return value
            self._secrets.append(value)
        if isinstance(value, bool) and hint is not Any and "bool" not in str(hint):
            # Python takes true for 1.
            self._fault(key, f"is {str(value).lower()}, which is neither a number nor a text")
            return value
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hint)
        except (PydanticUserError, TypeError, NameError):
            return value  # a type that only the sink understands
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            self._fault(key, wrong_value(error.errors(include_url=False)[0], key))
            return value

    def _try_to_make(self, sink: Callable[..., Sink], options: dict[str, Any]) -> None:
        try:
            sink(**options)
        except ConfigError as error:
            for fault in error.faults:
                key, colon, text = fault.partition(": ")
                if colon and key in options:
                    self._fault(key, scrub(text, self._secrets))
                else:
                    self._fault("sink", scrub(fault, self._secrets))
        except Exception as error:  # noqa: BLE001 a sink of another package may raise anything
            self._fault("sink", scrub(f"{type(error).__name__}: {error}", self._secrets))

    def _given(self, key: str, value: Any, places: Places) -> Any:
        """Read a list or table that the environment holds as JSON; `{id}` is none, and stays a text."""
        if isinstance(value, str) and value[:1] in ("[", "{") and places.is_variable(("subscription", self._name, key)):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        return value

    def _fault(self, key: str, text: str) -> None:
        self.faults.append(self._places.fault(("subscription", self._name, key), text))


def _hints(sink: Callable[..., Sink]) -> dict[str, Any]:
    try:
        return get_type_hints(sink.__init__ if inspect.isclass(sink) else sink)
    except (NameError, TypeError, AttributeError):
        return {}
