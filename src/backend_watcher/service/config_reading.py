"""The way from layers of settings to a `Config`, gathering every fault on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from backend_watcher.errors import ConfigError
from backend_watcher.postgres.connect import address_of
from backend_watcher.postgres.names import check_publication_name, check_slot_name
from backend_watcher.service.config import Config, JournalConfig, SourceConfig, SubscriptionConfig, WebConfig
from backend_watcher.service.config_file import ConfigFile, KeyPath, read_config_file
from backend_watcher.service.config_secrets import BadReferenceError, resolve, show
from backend_watcher.service.config_settings import (
    Places,
    Settings,
    faults_of,
    read_settings,
    unknown_variables,
    without,
)
from backend_watcher.service.config_source import faults_of_kind
from backend_watcher.service.config_subscription import Entry, Program
from backend_watcher.service.config_web import parse_listen
from backend_watcher.service.watcher import NAME, Watcher

STATE_FOLDER = Path(".watcher")

READINGS_MAX = 3
"""The first names what is wrong, the second is without it."""


class Reading:
    """One reading of all settings. Faults are gathered, and raised together at the end."""

    def __init__(
        self, path: Path | None, environ: Mapping[str, str], watcher: Watcher | None, *, complete: bool
    ) -> None:
        self._environ = environ
        self._watcher = watcher
        self._complete = complete
        self.faults: list[str] = []
        try:
            self._file = read_config_file(path)
        except ConfigError as error:
            # The environment is read all the same: its faults are named together with those of the file.
            self._file = ConfigFile(path)
            self.faults += error.faults
        self._indexes: dict[str, int] = {}
        self._values = dict(self._file.values)
        self._places = Places(self._file, environ, self._indexes)

    def config(self) -> Config:
        """Return the Config. Raises ConfigError with all faults."""
        self.faults += unknown_variables(self._environ)
        self._values["subscription"] = self._by_name(self._values.get("subscription", []))
        settings = self._settings()
        name = self._name(settings)
        source = self._source(settings, name)
        web = self._web(settings)
        subscriptions, overrides = self._subscriptions(settings)
        if self.faults:
            raise ConfigError(self.faults)
        journal = settings.journal
        path = Path(journal.path) if journal.path is not None else STATE_FOLDER / f"{name}.journal"
        return Config(
            name,
            source,
            JournalConfig(path, journal.quota_bytes, journal.retain_seconds, journal.retain_bytes),
            subscriptions,
            overrides,
            web,
        )

    def _by_name(self, entries: Any) -> dict[str, Any]:
        """Put the entries of `[[subscription]]` under their names, as the environment addresses them."""
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._fault(("subscription",), "is not a list of tables; right would be [[subscription]]")
            return {}
        named: dict[str, Any] = {}
        for index, entry in enumerate(entries):
            name = entry.get("name")
            place = f"{self._file.place(('subscription', index, 'name'))}: subscription[{index + 1}]"
            if not isinstance(name, str) or not NAME.fullmatch(name):
                wrong = "is missing" if name is None else f"{show('name', name)} is not a name"
                self.faults.append(f"{place}.name: {wrong}; a name has 1 to 40 of a-z, 0-9 and _")
            elif name in named:
                self.faults.append(f"{place}.name: there is a subscription {name!r} already; give it another name")
            else:
                named[name] = entry
                self._indexes[name] = index
        return named

    def _settings(self) -> Settings:
        """Read the layers. What is wrong is named and left out, so that the rest is looked at too."""
        built = {"name": self._watcher.name} if self._watcher is not None else {}
        environ, values = dict(self._environ), self._values
        for _ in range(READINGS_MAX):
            try:
                return read_settings(environ, values, built)
            except ValidationError as error:
                faults = faults_of(error, Settings, self._places)
                self.faults += faults.values()
                environ, values = without(faults, environ, values)
            except SettingsError as error:
                self.faults.append(f"environment: {error}")
                break
            except RecursionError:
                self.faults.append(f"{self._file.path}: a value is nested too deeply")
                break
        raise ConfigError(self.faults)

    def _name(self, settings: Settings) -> str:
        name = settings.name
        if name is None:
            journals = [] if self._complete else sorted(STATE_FOLDER.glob("*.journal"))
            if len(journals) == 1 and NAME.fullmatch(journals[0].stem):
                return journals[0].stem
            which = f" (there are {', '.join(map(str, journals))})" if journals else ""
            self._fault(("name",), f'is missing{which}; right would be, for example, name = "shop"')
        elif not NAME.fullmatch(name):
            self._fault(("name",), f"{show('name', name)} is not a name; a name has 1 to 40 of a-z, 0-9 and _")
        return name or ""

    def _source(self, settings: Settings, name: str) -> SourceConfig:
        source = settings.source
        slot = source.slot or f"watcher_{name}"
        publication = source.publication or f"watcher_{name}"
        for field, text in faults_of_kind(source).items():
            self._fault(("source", field), text)
        if source.slot is not None:
            self._try(("source", "slot"), lambda: check_slot_name(slot))
        if source.publication is not None:
            self._try(("source", "publication"), lambda: check_publication_name(publication))
        return SourceConfig(
            dsn=self._dsn(source.dsn),
            slot=slot,
            publication=publication,
            heartbeat_seconds=source.heartbeat_seconds,
            max_wal_bytes=source.max_wal_bytes,
            streaming=source.streaming,
            max_spill_bytes=source.max_spill_bytes,
            ddl_triggers=source.ddl_triggers,
            schema_changes=source.schema_changes,
            allow_superuser=source.allow_superuser,
            prepared_seconds_max=source.prepared_seconds_max,
            kind=source.kind,
            outbox_notify=source.outbox_notify,
            outbox_poll_seconds=source.outbox_poll_seconds,
            outbox_table=source.outbox_table,
            channels=tuple(source.channels or ()),
        )

    def _dsn(self, dsn: str | None) -> str:
        path: KeyPath = ("source", "dsn")
        given = dsn or self._environ.get("DATABASE_URL") or (self._watcher.dsn if self._watcher is not None else None)
        if not given:
            if self._complete:
                self._fault(path, "is missing; set it, or WATCHER_SOURCE__DSN or DATABASE_URL, to postgresql://…")
            return ""
        try:
            found = resolve(given, self._environ)
        except BadReferenceError as error:
            self._fault(path, str(error))
            return ""
        self._try(path, lambda: address_of(found))
        return found

    def _subscriptions(self, settings: Settings) -> tuple[tuple[SubscriptionConfig, ...], dict[str, dict[str, Any]]]:
        declared = [wanted.name for wanted in self._watcher.wanted] if self._watcher is not None else []
        program = Program(frozenset(declared), self._watcher is not None, self._complete)
        made: list[SubscriptionConfig] = []
        overrides: dict[str, dict[str, Any]] = {}
        for name, values in settings.subscription.items():
            entry = Entry(name, values, program, self._places, self._environ)
            if entry.is_override:
                overrides[name] = entry.override()
            else:
                subscription = entry.subscription()
                if subscription is not None:
                    made.append(subscription)
            self.faults += entry.faults
        return tuple(made), overrides

    def _web(self, settings: Settings) -> WebConfig:
        if settings.web.listen is None:
            return WebConfig()
        try:
            return parse_listen(settings.web.listen)
        except ValueError as error:
            self._fault(("web", "listen"), str(error))
            return WebConfig()

    def _try(self, path: KeyPath, check: Callable[[], object]) -> None:
        try:
            check()
        except ConfigError as error:
            for fault in error.faults:
                self._fault(path, fault)

    def _fault(self, path: KeyPath, text: str) -> None:
        self.faults.append(self._places.fault(path, text))
