"""A page of docs/ that the tests write: one row for each mark of the tests that passed."""

import os
from pathlib import Path
from typing import ClassVar

import pytest

__all__ = ["Page"]


class Page:
    """Gathers rows from tests with a mark.

    A test notes a row with ``item.user_properties.append((mark, row))``. With
    ``QUEUEHOP_WRITE_PAGES`` set, a run of all tests that have the mark writes the page. Without it,
    such a run fails if the page is stale.
    """

    mark: ClassVar[str]
    path: ClassVar[Path]

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._whole = (
            not hasattr(config, "workerinput")  # pytest-xdist passes reports to its controller
            and not config.option.collectonly
            and config.args_source is pytest.Config.ArgsSource.TESTPATHS
            and not config.option.keyword
            and config.option.markexpr in ("", self.mark)
        )

    def add(self, report: pytest.TestReport, row: object) -> None:
        """Add a *row* that the test of *report* proves."""
        raise NotImplementedError

    def render(self) -> str:
        """Return the text of the page."""
        raise NotImplementedError

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # If a test failed, the page is incomplete, and pytest must show the error.
        if report.failed:
            self._whole = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.mark in report.keywords and not report.passed:
            self._whole = False
        if report.when == "call" and report.passed:
            for name, row in report.user_properties:
                if name == self.mark:
                    self.add(report, row)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not self._whole or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        text = self.render()
        if not self.path.exists() or self.path.read_text() != text:
            if not os.environ.get("QUEUEHOP_WRITE_PAGES"):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
                reporter = self._config.pluginmanager.get_plugin("terminalreporter")
                reporter.write_line(f"\n{self.path.name} is stale: run `make pages` and commit it")
            else:
                self.path.write_text(text)
