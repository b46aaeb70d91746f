"""
PostgreSQL's regression SQL against a running watcher, its tables compared with a mirror: `python -m judge.run`.

Each run is a server of its own with an event trigger that gives every new table REPLICA IDENTITY FULL, a publication
FOR ALL TABLES, and `watcher run` with one subscription that takes everything. The schema changes that the watcher
told of have to name every table that is not equal, before anybody asked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import psycopg

from backend_watcher.embedded import EmbeddedPostgres
from faults.running import Running, pause, streams, until

from .compare import Difference, differences, unsupported
from .mirror import Mirror
from .regress import NoRegress, Regress, prepare

EQUAL_MIN = 516
"""Of 533 tables of PostgreSQL 15: what rows alone can keep equal; the others were altered without a row being sent."""
ROWS_MIN = 100_000
"""With fewer the suite has not done its work: its files of data may not be readable to the server's account."""
KILLS = 20
SCHEDULE_SECONDS_MAX = 900.0
TOLD_SECONDS_MAX = 60.0
CATCH_UP_SECONDS_MAX = 300.0
MARKS = "judge_marks"
TRIGGER = """
CREATE FUNCTION give_identity() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE made record;
BEGIN
    FOR made IN SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
                WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', made.oid::regclass);
    END LOOP;
END $$;
CREATE EVENT TRIGGER give_identity ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA')
    EXECUTE FUNCTION give_identity();
"""


@dataclass
class Verdict:
    """What one run came to."""

    name: str
    tables: int = 0
    equal: int = 0
    rows: int = 0
    differing: list[dict[str, Any]] = field(default_factory=list)
    told: int = 0
    told_in_vain: int = 0
    kills: int = 0
    suite_seconds: float = 0.0
    catch_up_seconds: float = 0.0
    told_seconds: float = 0.0
    unsupported: dict[str, int] = field(default_factory=dict)

    @property
    def untold(self) -> list[str]:
        """The tables that are different, and nobody said so."""
        return [one["table"] for one in self.differing if not one["told"]]

    def passed(self, detector: bool) -> bool:
        """Say whether it is as it has to be."""
        share = self.equal * 533 >= EQUAL_MIN * self.tables
        return self.tables > 0 and self.rows >= ROWS_MIN and share and not (detector and self.untold)


@dataclass(frozen=True)
class Plan:
    """One run."""

    name: str
    detector: bool = True
    streaming: bool = False
    kills: int = 0


PLANS = {
    plan.name: plan
    for plan in (
        Plan("rows only", detector=False),
        Plan("with schema changes"),
        Plan("streamed", streaming=True),
        Plan("killed", kills=KILLS),
    )
}


def judge(plan: Plan, regress: Regress, folder: Path, schedule: Path | None = None) -> Verdict:
    """Do one run in an empty folder."""
    verdict = Verdict(plan.name)
    # Its default is 64 MB: nothing of the suite is streamed then.
    settings = {"logical_decoding_work_mem": "64kB"} if plan.streaming else {}
    server = EmbeddedPostgres(install_dir=regress.install, database="regression", settings=settings)
    with server, psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE TABLE {MARKS} (id int PRIMARY KEY)")
        admin.execute(TRIGGER)
        admin.execute("CREATE PUBLICATION judge FOR ALL TABLES")
        with _Watched(folder, server.dsn, plan) as watched:
            watched.start(admin)
            begun = time.monotonic()
            with watched.killing(plan.kills) as killed:
                run_suite(regress, server, folder, schedule)
            verdict.suite_seconds = round(time.monotonic() - begun, 1)
            verdict.kills = killed.count
            admin.execute(f"INSERT INTO {MARKS} VALUES (1)")
            verdict.catch_up_seconds = round(until(watched.has_mark, "the last row", CATCH_UP_SECONDS_MAX), 1)
            _compare(admin, watched, verdict, plan)
    return verdict


def _compare(admin: psycopg.Connection[Any], watched: _Watched, verdict: Verdict, plan: Plan) -> None:
    mirror = Mirror(watched.mirror)
    try:
        found = list(differences(admin, mirror, {f"public.{MARKS}"}))
    finally:
        mirror.close()
    differing = [one for one, _ in found if one is not None]
    verdict.rows = sum(count for _, count in found)
    verdict.tables, verdict.equal = len(found), len(found) - len(differing)
    verdict.unsupported = unsupported(admin)
    told: dict[str, list[str]] = {}
    reread: set[str] = set()

    def all_told() -> bool:
        told.clear()
        for change in watched.schema_changes():
            told.setdefault(change["table"], []).append(f"{change['kind']}: {change['what']}")
            if change["needs_reread"]:
                reread.add(change["table"])
        return all(_told(one, told) for one in differing)

    begun = time.monotonic()
    while plan.detector and not all_told() and time.monotonic() - begun < TOLD_SECONDS_MAX:
        pause(1.0)
    verdict.told_seconds = round(time.monotonic() - begun, 1)
    verdict.told = sum(map(len, told.values()))
    verdict.told_in_vain = len(reread.difference(*({one.name, one.told_as} for one in differing)))
    verdict.differing = [{"table": one.name, "why": one.words, "told": _told(one, told)} for one in differing]


def _told(one: Difference, told: dict[str, list[str]]) -> list[str]:
    return told.get(one.name, []) + (told.get(one.told_as, []) if one.told_as != one.name else [])


class _Killed:
    count = 0


class _Watched:
    """`watcher run`, killed and started again as often as is wished."""

    def __init__(self, folder: Path, dsn: str, plan: Plan) -> None:
        self.folder = folder
        self.mirror = folder / "mirror"
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
            "WATCHER_SOURCE__DSN": dsn,
            "WATCHER_SOURCE__PUBLICATION": "judge",
            "JUDGE_MIRROR": str(self.mirror),
            **({"WATCHER_SOURCE__SCHEMA_CHANGES": "published"} if plan.detector else {}),
        }
        self._running: Running | None = None
        self._dice = random.Random(plan.name)

    def start(self, admin: psycopg.Connection[Any] | None = None) -> None:
        """Start; with a connection, return when the server streams to it."""
        self._running = Running(self.folder, self._environment, program=Path(__file__).with_name("program.py"))
        if admin is not None:
            until(lambda: streams(admin) or self.ended, "streaming")
        if self.ended:
            raise RuntimeError(f"the watcher ended:\n{self._running.log()}")

    @property
    def ended(self) -> bool:
        return self._running is not None and self._running.ended

    def has_mark(self) -> bool:
        if self.ended and self._running is not None:
            raise RuntimeError(f"the watcher ended:\n{self._running.log()[-4000:]}")
        mirror = Mirror(self.mirror)
        try:
            return mirror.has_row(f"public.{MARKS}")
        finally:
            mirror.close()

    def schema_changes(self) -> list[dict[str, Any]]:
        """Ask as a person would: the command line, beside the running process."""
        program = str(Path(__file__).with_name("program.py"))
        command = [sys.executable, "-m", "backend_watcher", "schema", "list", "--json", "--app", program]
        ran = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=60
        )
        if ran.returncode != 0:
            raise RuntimeError(ran.stderr or ran.stdout)
        found: list[dict[str, Any]] = json.loads(ran.stdout)["schema_changes"]
        return found

    @contextmanager
    def killing(self, kills: int) -> Iterator[_Killed]:
        """Kill it so often while the suite runs, at random moments."""
        killed, stop = _Killed(), threading.Event()

        def kill() -> None:
            while killed.count < kills and not stop.wait(self._dice.uniform(0.3, 3.0)):
                if self._running is not None:
                    self._running.end(signal.SIGKILL)
                killed.count += 1
                self.start()

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        try:
            yield killed
        finally:
            # What is left of the kills comes while it catches up.
            if sys.exc_info()[0] is not None:
                stop.set()
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.end(signal.SIGTERM)


def run_suite(regress: Regress, server: EmbeddedPostgres, folder: Path, schedule: Path | None = None) -> None:
    """Run the whole schedule; whether its output is the expected one is not the question here."""
    out = folder / "suite"
    (out / "results").mkdir(parents=True)
    # The server writes there too, as another account.
    for path in (folder, out, out / "results"):
        path.chmod(0o777)
    where = [f"--inputdir={regress.source}", f"--outputdir={out}", f"--bindir={regress.install / 'bin'}"]
    server_at = ["--host=127.0.0.1", f"--port={server.port}", "--user=postgres"]
    plan = [f"--schedule={schedule or regress.source / 'parallel_schedule'}", "--max-connections=10"]
    command = [str(regress.program), "--use-existing", "--dbname=regression", f"--dlpath={regress.library}"]
    with (folder / "suite.log").open("w") as log:
        ran = subprocess.run(
            [*command, *where, *server_at, *plan],
            cwd=out,
            env={**os.environ, "PGPASSWORD": server.password},
            stdout=log,
            stderr=log,
            timeout=SCHEDULE_SECONDS_MAX,
            check=False,
        )
    if ran.returncode > 1:
        raise RuntimeError(f"pg_regress ended with {ran.returncode}:\n{(folder / 'suite.log').read_text()[-2000:]}")


def lines(verdict: Verdict) -> list[str]:
    """Tell a run for people."""
    never = ", ".join(f"{count} {what}" for what, count in verdict.unsupported.items())
    others = f"{len(verdict.untold)} others not told"
    said = [
        f"{verdict.name}: {verdict.equal} of {verdict.tables} tables ({verdict.rows} rows) equal, {others}",
        f"  suite {verdict.suite_seconds} s, the last row {verdict.catch_up_seconds} s later, {verdict.kills} kills",
        f"  {verdict.told} schema changes told, to read {verdict.told_in_vain} tables again that are equal",
        f"  never sent: {never}",
    ]
    for one in verdict.differing:
        told = f"told: {one['told'][0]}" if one["told"] else "NOT TOLD"
        said.append(f"  {one['table']}: {one['why']}; {told}")
    return said


def main() -> int:
    """Run the plans; 1 where one did not pass, 2 where the regression SQL cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fetched", type=Path, required=True, help="where the regression SQL is put")
    parser.add_argument("--plans", nargs="*", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--schedule", type=Path, help="another schedule than the whole one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for what each run leaves behind")
    asked = parser.parse_args()
    try:
        regress = prepare(asked.fetched.resolve())
    except NoRegress as missing:
        print(f"skipped: {missing}", file=sys.stderr)
        return 2
    verdicts = []
    for name in asked.plans:
        with TemporaryDirectory() as temporary:
            folder = asked.keep / name.replace(" ", "-") if asked.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            verdicts.append(judge(PLANS[name], regress, folder, asked.schedule))
        print("\n".join(lines(verdicts[-1])), flush=True)
    passed = all(verdict.passed(PLANS[verdict.name].detector) for verdict in verdicts)
    if asked.json:
        told = {"pass": passed, "runs": [asdict(verdict) | {"untold": verdict.untold} for verdict in verdicts]}
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
