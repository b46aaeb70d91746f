"""What every test run says first, and how a missing service is treated."""

import os

import pytest

from backend_watcher import __version__
from backend_watcher.version import is_compiled


def pytest_report_header() -> str:
    return f"backend-watcher {__version__} ({'compiled' if is_compiled() else 'pure Python'})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """In CI a test that is skipped because a service is missing has failed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true: {report.longrepr}"
    return report
