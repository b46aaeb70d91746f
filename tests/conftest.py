"""What every test run says first, and how a missing service is treated."""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from backend_watcher import __version__
from backend_watcher.version import is_compiled
from skips import is_excused

# How long one example takes is the machine's business.
settings.register_profile("here", deadline=None)
settings.load_profile("here")


def pytest_report_header() -> str:
    return f"backend-watcher {__version__} ({'compiled' if is_compiled() else 'pure Python'})"


@pytest.fixture(autouse=True)
def logs_as_by_default() -> Iterator[None]:
    """What a command configured is gone after its test."""
    yield
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """In CI a test that is skipped because a service is missing has failed; `skips.py` says what else a skip may be."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("CI") == "true" and not is_excused(str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true: {report.longrepr}"
    return report
