"""Small enough to read: function and file length, docstrings, a twin test for every module, nothing left behind."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "backend_watcher"
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
WITHOUT_TWIN = {
    "__main__.py",  # one line
    "version.py",  # tests/cli
    "contracts.py",  # promises; kept by tests/conformance
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_small_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no module docstring"
    assert text.count("\n") <= FILE_LINES_MAX
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", [m for m in MODULES if m.name != "__init__.py"], ids=relative)
def test_a_module_has_a_twin_test(path: Path) -> None:
    room = path.relative_to(SOURCE).parent
    if path.name in WITHOUT_TWIN or room == Path("testing"):
        return
    twin = ROOT / "tests" / room / f"test_{path.name}"
    assert twin.exists() or list(twin.parent.glob(f"test_{path.stem}_*.py")), f"{relative(twin)} is missing"


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_a_test_never_sleeps(path: Path) -> None:
    if path == Path(__file__):
        return
    calls = [line for line in path.read_text().splitlines() if re.search(r"\bsleep\(", line.split("#")[0])]
    # sleep(0) gives way to other tasks and waits for nothing.
    assert not [line for line in calls if "sleep(0)" not in line]


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=relative)
def test_nothing_is_left_behind(path: Path) -> None:
    if path == Path(__file__):
        return
    text = path.read_text()
    assert not re.search(r"\b(breakpoint\(|pdb\.set_trace|TODO|FIXME|XXX)", text)
    assert not re.search(r"(?<![\w.~-])/(?:home|root)/\w", text), "a path of a machine"


def test_rooms_have_domain_names() -> None:
    banned = {"utils", "common", "helpers", "core", "manager", "base", "misc"}
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & banned


def test_no_sub_packages_below_a_room() -> None:
    assert not [path for path in MODULES if len(path.relative_to(SOURCE).parts) > 2]
