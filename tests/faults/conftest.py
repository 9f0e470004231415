"""The report of the fault suite: what was tried how often, and how it ended."""

import subprocess
import time

import pytest
import torch

from tests.helpers.project import PROJECT
from utils.device import processor_name

REPORT = PROJECT / "tests" / "faults" / "REPORT.md"
HEAD = """# Faults: the last full run

Written by `pytest -m faults`, which runs every harness of this folder at full count.
`docs/promises.md` explains the promises.

{machine}

| promise | what was tried | trials | violations | remarks |
| --- | --- | --: | --: | --- |
"""


class Report:
    """Rows of the report, in the order of the promises."""

    def __init__(self):
        self.rows, self.start = {}, time.monotonic()

    def add(self, promise, what, trials, violations, remarks=""):
        """Record one harness; violations: a number, which its test asserts to be 0."""
        self.rows[promise, what] = (trials, violations, remarks)

    def write(self):
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        minutes = (time.monotonic() - self.start) / 60
        machine = (
            f"Processor: {processor_name()}; torch {torch.__version__}; one thread; "
            f"{minutes:.0f} minutes; code of commit {commit}."
        )
        lines = [
            f"| {promise} | {what} | {trials} | {violations} | {remarks} |"
            for (promise, what), (trials, violations, remarks) in sorted(
                self.rows.items(), key=lambda row: (int(row[0][0][1:]), row[0][1])
            )
        ]
        text = HEAD.format(machine=machine) + "\n".join(lines) + "\n"
        REPORT.write_text(text, "utf-8")


def pytest_configure(config):
    config.faults = Report()


@pytest.fixture
def report(request):
    """The report; it is written when the whole suite has passed."""
    return request.config.faults


def pytest_sessionfinish(session, exitstatus):
    whole = session.config.args_source is session.config.ArgsSource.TESTPATHS
    if session.config.option.markexpr == "faults" and whole and exitstatus == 0:
        session.config.faults.write()


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/faults/" in item.path.as_posix():
            item.add_marker("faults")
            item.add_marker(
                pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
            )
