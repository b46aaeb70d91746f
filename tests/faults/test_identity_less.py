"""Tables without a replica identity: never published by us, and told of where somebody else did it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from backend_watcher.cli.main import main
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode

from .results import Part
from .running import SLOT, Running, environment, until
from .source import insert, seen
from .test_schema_changes import NOTICED_SECONDS_MAX, changes, noticed, wait_until_known

UPDATE = "UPDATE bare SET id = id + 1"


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.scenario("65", "tables whose updates would fail")
def test_one_that_is_asked_for_is_refused_and_goes_on_being_updated(
    postgres: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    result: Part,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = f'name = "faults"\n[source]\ndsn = "{postgres.dsn}"\n'
    subscription = '[[subscription]]\nname = "bare"\nsink = "stdout"\ntable = "bare"\n'
    (tmp_path / "watcher.toml").write_text(settings + subscription)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (id int); INSERT INTO bare VALUES (1)")
        for command in ("check", "run"):
            code = main((command,))
            said = "".join(capfd.readouterr())
            assert code == ExitCode.SOURCE_REFUSED, said
            assert "ALTER TABLE public.bare REPLICA IDENTITY FULL" in said
            connection.execute(UPDATE)
        left = "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication)"
        assert connection.execute(left).fetchone() == (0, 0)
    result.add(runs=1, application_errors=0)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("65", "tables whose updates would fail")
def test_one_made_later_under_a_publication_of_all_tables(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part
) -> None:
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE PUBLICATION {SLOT} FOR ALL TABLES".encode())
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            assert "sends all tables" in running.log()
            wait_until_known(running)
            connection.execute("CREATE TABLE bare (id int); INSERT INTO bare VALUES (1)")
            # What its owner's publication brings about, and not we.
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                connection.execute(UPDATE)
            took = noticed(tmp_path, environ, ["identity_lost"])
            (told,) = changes(tmp_path, environ)
            connection.execute(told["remedy"].partition(" -- ")[0].encode())
            connection.execute(UPDATE)
            insert(connection, 1, 10)
            until(lambda: seen(running) >= 10, "delivery")
            assert running.end() == 0
    assert took <= NOTICED_SECONDS_MAX
    result.add(runs=1, noticed_seconds_max=took)
